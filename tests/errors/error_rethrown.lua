--- An error that was caught and raised again keeps the line where it began.
local cnf = require("cnf")

local ok, problem = pcall(function()
  cnf.error({ code = "EIO", message = "deep inside" })
end)
assert(not ok)
error(problem)
