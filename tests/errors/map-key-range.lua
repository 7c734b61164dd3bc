--- A key that does not fit.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules

rules:set(65536, { port = 80 })
