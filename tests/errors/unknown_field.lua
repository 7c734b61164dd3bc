--- A function of a module that is nearly right.
local task = require("cnf.task")

task.slep(1)
