--- Joining a task that was cancelled.
local task = require("cnf.task")

local t = task.spawn(task.sleep, 10)
t:cancel()
t:join()
