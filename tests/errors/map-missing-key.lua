--- A key that must be there, and is not.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules

rules:set(7, { port = 80 }, "exist")
