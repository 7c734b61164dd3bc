--- A link without a name.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.link.veth({ netns = ns, peer = { name = "b", netns = ns } })
