--- Two services of one address and port on a hook, under two names.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-lb-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, address = "10.0.0.1/24", peer = { name = "eth1", netns = ns } })
cnf.lb.service({ name = "web", vip = "192.0.2.1:80", attach = { eth0 } })

-- Another protocol, and another hook, is another service.
cnf.lb.service({ name = "udp", vip = "192.0.2.1:80", proto = "udp", attach = { { eth0, "egress" } } })
cnf.lb.service({ name = "shop", vip = "192.0.2.1:80", attach = { { eth0, "egress" } } })
