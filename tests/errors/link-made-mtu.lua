--- An MTU that the other end cannot have.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-" .. cnf._test.pid())
cnf.link.veth({ name = "eth0", netns = ns, mtu = 1500, peer = { name = "eth1", netns = ns, mtu = 70000 } })
