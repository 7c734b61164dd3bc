--- A policy that goes nowhere.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-policy-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, address = "10.0.0.1/24", peer = { name = "eth1", netns = ns } })
local r = cnf.policy.router({ name = "edge", attach = { { eth0, "egress" } } })

r:add({ from = "192.168.1.0/24", proto = "tcp" })
