--- attach is an array of hooks, also of one.
local cnf = require("cnf")
local link = cnf.link.veth({ name = "eth0", netns = cnf.netns.new("golden-policy-" .. cnf._test.pid()) })
cnf.policy.router({ attach = { link, "egress" } })
