--- A type that the object does not have.
package.path = "./?.lua"
local object = require("lib.sender")

object.maps.events:on_record(print, { type = "struct evnt" })
