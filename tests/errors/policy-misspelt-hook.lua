--- A hook that is not spelt as it should be.
local cnf = require("cnf")
cnf.policy.router({ attach = { { cnf.netns.host():link("lo"), "egres" } } })
