--- An error in a task that nobody joins: printed, and the exit status is 1.
local task = require("cnf.task")

task.spawn(function()
  task.sleep(0)
  error("deep in a task")
end)
