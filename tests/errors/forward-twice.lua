--- A link that forwards already.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-filter-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.forward.xdp({ links = { eth0 } })
cnf.forward.xdp({ links = { eth0 } })
