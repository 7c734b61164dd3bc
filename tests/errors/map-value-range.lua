--- A number that does not fit its field.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules

rules:set(1, { address = "10.0.0.1", port = 70000 })
