--- An option of the wrong type.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.link.veth({ name = "v0", netns = ns, mtu = "large" })
