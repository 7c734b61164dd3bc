--- A key of another type.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules

rules:set("http", { port = 80 })
