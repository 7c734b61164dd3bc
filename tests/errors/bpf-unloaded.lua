--- An object that the script has let go.
package.path = "./?.lua"
local object = require("lib.counter").load()
object:unload()

print(object.maps.rules)
