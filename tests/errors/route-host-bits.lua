--- A route to a network takes the network's address, or an address alone.
local ns = require("cnf.netns").host()
ns:route({ dst = "10.0.0.1/24", type = "blackhole", table = 4000 })
