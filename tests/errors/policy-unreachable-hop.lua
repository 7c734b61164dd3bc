--- A next hop that is not on its link.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-policy-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, address = "10.0.0.1/24", peer = { name = "eth1", netns = ns } })
local r = cnf.policy.router({ name = "edge", attach = { { eth0, "egress" } } })

r:set({
  { from = "192.168.1.0/24", via = "10.0.0.2", dev = eth0 },
  { from = "192.168.2.0/24", via = "10.9.0.2", dev = eth0 },
})
