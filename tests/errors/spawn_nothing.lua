--- task.spawn wants a function.
local task = require("cnf.task")

task.spawn(task.sleep(0))
