--- An address that is none.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.link.bridge({ name = "br0", netns = ns, address = { "10.0.0.1/24", "10.0.0.300/24" } })
