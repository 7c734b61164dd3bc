--- More than fits.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules

rules:set_many({ {}, {}, {} })
