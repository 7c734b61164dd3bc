--- task.all takes functions and tasks; nothing starts when one of them is neither.
local task = require("cnf.task")

task.all({
  function()
    error("this one must not run")
  end,
  "soon",
})
