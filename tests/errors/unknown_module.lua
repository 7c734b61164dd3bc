--- A module of cnf that is nearly right.
local cnf = require("cnf")

cnf.tsak.sleep(1)
