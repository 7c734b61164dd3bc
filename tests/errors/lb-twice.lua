--- Two services of one name.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-lb-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, address = "10.0.0.1/24", peer = { name = "eth1", netns = ns } })
cnf.lb.service({ name = "web", vip = "192.0.2.1:80", attach = { eth0 } })

cnf.lb.service({ name = "web", vip = "192.0.2.1:443", attach = { eth0 } })
