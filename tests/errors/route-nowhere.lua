--- A route that says no way.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-" .. cnf._test.pid())
ns:route({ dst = "10.1.0.0/16" })
