--- Takes the records of an object's ring buffer for some seconds: prints "ready PROGRAM_ID", then how many came a second.
local cnf = require("cnf")
local object = cnf.bpf.load(cnf.args[1])
local seconds = tonumber(cnf.args[2])

local events, bytes = 0, 0
local subscription = object.maps.events:on_record(function(event)
  events = events + 1
  bytes = bytes + event.bytes
end, { type = "struct event" })

print("ready " .. object.programs.send.id)
io.stdout:flush()
while events == 0 do
  cnf.task.sleep(0.001)
end
local before, start = events, cnf.task.now()
cnf.task.sleep(seconds)
print(("%.9g"):format((events - before) / (cnf.task.now() - start)))
subscription:close()
