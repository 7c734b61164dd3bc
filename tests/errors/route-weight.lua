--- A weight that no next hop has.
require("cnf").netns.host():route({ dst = "10.0.0.0/8", nexthops = { { dev = "lo", weight = 0 } } })
