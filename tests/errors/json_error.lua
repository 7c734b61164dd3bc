--- args: --log-format json SCRIPT
--- One object a line, for machines.
local cnf = require("cnf")

cnf.error({ op = "uplink.choose", code = "EIO", message = "no uplink", hint = "none" })
