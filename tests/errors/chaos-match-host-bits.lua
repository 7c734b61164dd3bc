--- A prefix with host bits in what a fault matches.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-chaos-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.chaos.inject(eth0, { loss = "1%", match = { from = "10.0.0.1/24" } })
