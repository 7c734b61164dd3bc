--- More networks than there is room for.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-filter-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.filter.xdp({ link = eth0, size = 1 }):deny({ "10.0.0.1", "10.0.0.2", "10.0.0.3" })
