--- More than all of the packets.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-chaos-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.chaos.inject(eth0, { gemodel = { p = "1%", r = "130%" } })
