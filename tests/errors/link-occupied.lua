--- A macvlan on a link whose packets go to a bridge.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-" .. cnf._test.pid())
cnf.link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns } })
cnf.link.bridge({ name = "br0", netns = ns, ports = "eth0" })
cnf.link.macvlan({ name = "mv0", netns = ns, link = "eth0" })
