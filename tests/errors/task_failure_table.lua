--- What a task raises may be a table: its line is told all the same.
local task = require("cnf.task")
task.spawn(function()
  error({ code = 7 })
end)
