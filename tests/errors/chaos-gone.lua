--- A fault on a link that is gone.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-chaos-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns } })
eth0:delete()

cnf.chaos.inject(eth0, { loss = "5%" })
