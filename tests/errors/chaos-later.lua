--- What netem does and chaos does not yet.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-chaos-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.chaos.inject(eth0, { loss = "1%", delay = "10ms" })
