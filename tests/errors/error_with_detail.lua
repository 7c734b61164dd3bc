--- An error with several lines of detail below it.
local cnf = require("cnf")

cnf.error({ message = "the check failed", detail = "first line\nsecond line" })
