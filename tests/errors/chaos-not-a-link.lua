--- A link's name where a link is wanted.
local cnf = require("cnf")
cnf.chaos.inject("eth0", { loss = "1%" })
