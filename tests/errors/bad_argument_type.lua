--- A table where a duration is wanted.
local task = require("cnf.task")

task.sleep({})
