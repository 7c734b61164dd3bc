--- An address that is named twice, at the other end of a pair.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-link-" .. cnf._test.pid())
local addresses = { "10.0.0.1/24", "fd00::1/64", "fd00::1/128" }
cnf.link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns, address = addresses } })
