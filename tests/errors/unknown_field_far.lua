--- A function of a module that is like no other: all that there are.
local cnf = require("cnf")

cnf.log.frobnicate("?")
