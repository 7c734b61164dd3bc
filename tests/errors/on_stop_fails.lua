--- An error in a handler is told, and is not the script's: the others are called.
--- status: 0
local cnf = require("cnf")

cnf.on_stop(function()
  io.stderr:write("the other handler\n")
end)
cnf.on_stop(function(reason)
  error("while stopping for " .. reason)
end)
