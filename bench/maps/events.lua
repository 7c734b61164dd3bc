--- Takes the records of an object's ring buffer. "rate OBJECT SECONDS" prints "ready PROGRAM_ID", then how many came a
--- second and the processor time of one, and goes on until it is stopped. "reads" and "keeps OBJECT ROUNDS PEER COUNT"
--- have PEER fill the buffer, and print the seconds of processor time for each record, of a handler that reads a field
--- and of one that keeps the whole record.
local cnf = require("cnf")
local task = cnf.task
local way, path = cnf.args[1], cnf.args[2]
local object = cnf.bpf.load(path)
local programs = object.programs

local events, bytes, last = 0, 0, nil

local function reads(event)
  events = events + 1
  bytes = bytes + event.bytes
end

local function keeps(event)
  events = events + 1
  bytes = bytes + event.bytes
  last = event
end

local function subscribe(handler)
  return object.maps.events:on_record(handler, { type = "struct event" })
end

local function rate(seconds)
  subscribe(reads)
  print("ready " .. programs.burst.id)
  io.stdout:flush()
  while events == 0 do
    task.sleep(0.001)
  end
  local before, start, clock = events, task.now(), os.clock()
  task.sleep(seconds)
  local count, spent = events - before, os.clock() - clock
  print(("%.9g %.9g"):format(count / (task.now() - start), spent / count))
  cnf.wait()
end

local function drain(handler, rounds, peer, count)
  local spent = 0
  for round = 1, rounds do
    assert(os.execute(("%s fill %d %d"):format(peer, programs.send.id, count)))
    local subscription = subscribe(handler)
    local start = os.clock()
    while events < round * count do
      task.sleep(0.002)
    end
    spent = spent + os.clock() - start
    subscription:close()
  end
  assert(handler == reads or last.bytes == bytes // events)
  print(("%.9g"):format(spent / events))
end

if way == "rate" then
  rate(tonumber(cnf.args[3]))
else
  local handlers = { reads = reads, keeps = keeps }
  drain(handlers[way], tonumber(cnf.args[3]), cnf.args[4], tonumber(cnf.args[5]))
end
