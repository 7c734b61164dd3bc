--- A destination that is none.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:route({ dst = "10.0.0/8", dev = "lo" })
