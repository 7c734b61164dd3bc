--- As a route, a rule selects by networks.
local ns = require("cnf.netns").host()
ns:rule({ from = "fd00::1/64", table = 4000 })
