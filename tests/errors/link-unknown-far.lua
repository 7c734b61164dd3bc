--- An option that is like no other.
require("cnf").link.bridge({ name = "br0", foo = 1 })
