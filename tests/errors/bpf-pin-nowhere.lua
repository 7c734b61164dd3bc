--- A pin that is on no bpffs.
package.path = "./?.lua"
local object = require("lib.counter").load()

object.maps.rules:pin("/tmp/rules")
