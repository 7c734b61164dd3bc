--- An address that no link can have.
local cnf = require("cnf")
cnf.link.veth({ name = "eth0", netns = cnf.netns.new("golden-" .. cnf._test.pid()), mac = "01:00:5e:00:00:01" })
