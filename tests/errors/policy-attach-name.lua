--- attach takes Links.
require("cnf").policy.router({ attach = { { "eth0", "egress" } } })
