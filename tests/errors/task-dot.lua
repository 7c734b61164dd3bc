--- A method called with a dot.
local task = require("cnf.task")

local t = task.spawn(function() end)
t.join()
