local ip = { src = "10.0.0.1", dst = "10.0.0.2" }
require("cnf").packet.build({ ip = ip, tcp = { flags = "sym" } })
