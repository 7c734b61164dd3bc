--- Table 0 is none: the kernel would put the route into main.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-route-" .. cnf._test.pid())
ns:route({ dst = "10.2.0.0/16", dev = "lo", table = 0 })
