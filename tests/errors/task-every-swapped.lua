--- task.every wants the interval first.
local task = require("cnf.task")

task.every(function() end, "1s")
