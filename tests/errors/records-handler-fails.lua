--- An error in a handler is shown with its line, and so is a record that is not of its type; both cost nothing more.
--- status: 0
package.path = "./?.lua"
local cnf = require("cnf")
local object = require("lib.sender")

local count = 0
local subscription = object.maps.events:on_record(function(record)
  count = count + 1
  if count == 1 then
    return record.number.of.words
  end
end)
for mark = 0, 1 do
  object.programs.send:test_run({ packet = ("\0"):rep(64), ctx = { mark = mark } })
  cnf.task.sleep(1.1)
end
object.programs.send:test_run({ packet = ("\0"):rep(64) })
cnf.task.sleep(0.05)
assert(count == 2 and subscription:stats().errors == 2)
subscription:close()
