--- requires: tcx
--- Two mirrors of one name on a link.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-mirror-" .. cnf._test.pid())
local eth0, eth1 = cnf.link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns } })
cnf.mirror.to({ from = eth0, to = eth1, direction = "ingress" })

cnf.mirror.to({ from = eth0, to = eth1, direction = "ingress", match = { proto = "tcp" } })
