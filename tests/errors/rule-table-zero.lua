--- Table 0 is none: the kernel would choose one that is empty.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-rule-" .. cnf._test.pid())
ns:rule({ from = "10.2.0.0/16", table = 0 })
