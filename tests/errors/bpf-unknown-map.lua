--- A map that the object does not have.
package.path = "./?.lua"
local object = require("lib.counter").load()

print(object.maps.x)
