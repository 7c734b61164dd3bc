--- A channel of less than nothing.
local task = require("cnf.task")

task.channel(-1)
