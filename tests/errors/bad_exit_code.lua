--- An exit status that is none.
local cnf = require("cnf")

cnf.exit(1000)
