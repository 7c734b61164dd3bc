--- A limit of packets, changed to bits.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-police-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })
cnf.police.limit({ link = eth0, pps = 1000 }):set({ rate = "10mbit" })
