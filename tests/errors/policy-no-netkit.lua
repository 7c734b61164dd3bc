--- A hook of links that are no netkit.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-policy-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, address = "10.0.0.1/24", peer = { name = "eth1", netns = ns } })
local r = cnf.policy.router({ name = "edge", attach = { { eth0, "egress" } } })

cnf.policy.router({ attach = { { eth0, "peer" } } })
