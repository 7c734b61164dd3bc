--- Links of two namespaces.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-filter-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
local other = cnf.netns.new("golden-other-" .. cnf._test.pid())
local eth1 = cnf.link.veth({ name = "eth1", netns = other })
cnf.forward.xdp({ links = { eth0, eth1 } })
