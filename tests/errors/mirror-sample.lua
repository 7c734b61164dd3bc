--- A sample that is no share.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-mirror-" .. cnf._test.pid())
local eth0, eth1 = cnf.link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns } })

cnf.mirror.to({ from = eth0, to = eth1, sample = "1:64" })
