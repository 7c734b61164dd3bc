--- Two modes on one link.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-filter-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.filter.xdp({ link = eth0, mode = "generic" })
cnf.filter.xdp({ link = eth0, mode = "native" })
