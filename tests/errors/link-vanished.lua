--- A link that went away under us.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
local v = cnf.link.veth({ name = "v0", netns = ns, address = "10.0.0.1/24", peer = { name = "v1", netns = ns } })
ns:exec("ip link delete v0")
v:set({ mtu = 1400 })
