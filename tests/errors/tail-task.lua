--- The last call of a task is a tail call, too.
local cnf = require("cnf")
local task = cnf.task.spawn(function()
  return cnf.mirror.to({ from = "eth0" })
end)
return task:join()
