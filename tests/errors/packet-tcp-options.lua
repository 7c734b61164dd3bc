local ip = { src = "10.0.0.1", dst = "10.0.0.2" }
local options = { bytes = "\2\4\5\xb4", mss = 1400 }
require("cnf").packet.build({ ip = ip, tcp = { options = options } })
