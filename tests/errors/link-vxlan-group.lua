--- One other end, where a group is meant.
require("cnf").link.vxlan({ name = "vx0", id = 7, group = "192.0.2.1", dev = "lo" })
