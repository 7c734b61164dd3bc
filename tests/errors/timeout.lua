--- task.timeout names its limit, in its caller's line.
local task = require("cnf.task")

task.timeout("10ms", function()
  task.sleep(10)
end)
