--- A kind of event that there is none of.
local cnf = require("cnf")
cnf.event.on("links", function() end)
