--- Frames without a link header cannot be copied to Ethernet.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-mirror-" .. cnf._test.pid())
local tun = cnf.link.tun({ name = "tun0", netns = ns })
local eth0 = cnf.link.veth({ name = "eth0", netns = ns })

cnf.mirror.to({ from = tun, to = eth0 })
