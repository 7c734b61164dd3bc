--- A duration that is none.
local task = require("cnf.task")

task.sleep("soon")
