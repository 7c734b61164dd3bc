--- An array has no records.
package.path = "./?.lua"
local object = require("lib.sender")

object.maps.cells:on_record(function(record)
  print(record)
end)
