--- A name that the enum does not have.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules

rules:set(1, { verdict = "DORP" })
