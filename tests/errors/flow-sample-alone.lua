--- A sample that nobody gets.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-police-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.flow.account({ link = eth0, sample = "1/100" })
