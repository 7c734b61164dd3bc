--- A route that is there.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
local v = cnf.link.veth({ name = "v0", netns = ns, address = "10.0.0.1/24", peer = { name = "v1", netns = ns } })
ns:route({ dst = "10.1.0.0/16", via = "10.0.0.2" })
ns:route({ dst = "10.1.0.0/16", via = "10.0.0.2" })
