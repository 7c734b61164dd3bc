--- A field that the struct does not have: the nearest, and the struct.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules

rules:set(1, { prot = 80 })
