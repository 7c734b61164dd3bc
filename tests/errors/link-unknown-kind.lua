--- A kind that there is none of.
local cnf = require("cnf")
cnf.link.vxlam({ name = "x" })
