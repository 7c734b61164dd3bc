--- A link of somebody else is not deleted.
local cnf = require("cnf")
cnf.netns.host():link("lo"):delete()
