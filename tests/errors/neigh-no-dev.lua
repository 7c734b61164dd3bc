--- A neighbour without a link.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:neigh({ dst = "10.0.0.2", lladdr = "02:00:00:00:00:02" })
