--- A program is a field of its object.
local cnf = require("cnf")
local link = cnf.link.veth({ name = "eth0", netns = cnf.netns.new("golden-attach-" .. cnf._test.pid()) })
cnf.bpf.attach(link, "ingress", "count")
