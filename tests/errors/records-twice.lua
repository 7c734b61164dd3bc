--- A second subscription would take records from the first.
package.path = "./?.lua"
local object = require("lib.sender")

object.maps.events:on_record(print)
object.maps.events:on_record(print)
