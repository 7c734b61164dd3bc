--- A copy to a link that is gone.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-mirror-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns } })
local tap = cnf.link.veth({ name = "tap0", netns = ns, peer = { name = "tap1", netns = ns } })
tap:delete()

cnf.mirror.to({ from = eth0, to = tap })
