--- The handler is missing.
package.path = "./?.lua"
local object = require("lib.sender")

object.maps.events:on_record({ type = "struct event" })
