--- A function of a module that is like no other: all that there are.
local task = require("cnf.task")

task.frobnicate()
