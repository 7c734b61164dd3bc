--- A mirror whose target is in another namespace.
local cnf = require("cnf")
local a, b = cnf.netns.new("golden-mirror-a-" .. cnf._test.pid()), cnf.netns.new("golden-mirror-b-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = a })
local tap = cnf.link.veth({ name = "tap", netns = b })

cnf.mirror.to({ from = eth0, to = tap })
