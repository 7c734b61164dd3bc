--- `_records`: handlers for what programs send: `m:on_record` and `bpf.trace`.

local native, cnf = ...
local task = cnf.task

local Records = cnf._library.class("RecordSubscription", "subscription", { "what", "task" })

function Records:__tostring()
  return ("RecordSubscription(%s)"):format(self.what)
end

--- Ends the subscription; the handler is not called again.
function Records:close()
  self.stream:close()
  self.task:cancel()
end

--- What has come so far: `records`, `errors` of the handler, `lost` if the kernel counts, `fullest`.
function Records:stats()
  local stats = self.stream:stats()
  stats.errors = self.problems.count
  return stats
end

--- Reports an error of the handler: the first at once, then one a second, with how many there were.
local function failed(problems, what, problem)
  problems.count = problems.count + 1
  problems.unsaid = problems.unsaid + 1
  if task.now() >= problems.next then
    native.failed(problem, what, problems.unsaid - 1)
    problems.unsaid, problems.next = 0, task.now() + 1
  end
end

local function too_short(what, stream, length)
  local name, size = stream:type()
  cnf.error({
    op = "map:on_record",
    subject = what,
    code = "EINVAL",
    message = ("a record of %d bytes is no %s, which has %d"):format(length, name, size),
    hint = 'type = "..." names the type that the program sends',
  })
end

-- How the records of a batch come to the handler: `take() -> how many` gets a batch; `call()` calls the handler for what is
-- left of it, and can be called again after an error.

--- Each record is a table of its own, which the handler may keep.
local function whole(what, stream, fn)
  local records, count, rests, short
  local at = 0
  local function take()
    at = 0
    records, count, rests, short = stream:take()
    return count
  end
  local function call()
    local records, rests, short = records, rests, short
    for i = at + 1, count do
      at = i
      if short and short[i] then
        too_short(what, stream, short[i])
      end
      fn(records[i], rests and rests[i])
    end
  end
  return take, call
end

-- Written for the fields that are read: of each a list, and all records are the same table.
local FIELDS = [[
local fn, lists, too_short = ...
local record = { %s }
local at = 0

local function plain(count)
  local fn, record = fn, record
  %s
  for i = at + 1, count do
    at = i
    %s
    fn(record)
  end
end

local function uneven(count, rests, short)
  %s
  while at < count do
    at = at + 1
    local i = at
    if short and short[i] then
      too_short(short[i])
    end
    %s
    fn(record, rests and rests[i])
  end
end

return plain, uneven, function()
  at = 0
end
]]

--- The handler only reads these fields of a record: then it cannot tell that it gets the same table every time.
local function some_fields(what, stream, fn, names)
  local lists, record, locals, set = {}, {}, {}, {}
  for number, name in ipairs(names) do
    lists[number] = {}
    record[number] = ("[%q] = false,"):format(name)
    locals[number] = ("local list%d = lists[%d]"):format(number, number)
    set[number] = ("record[%q] = list%d[i]"):format(name, number)
  end
  record, locals = table.concat(record, " "), table.concat(locals, "\n  ")
  set = table.concat(set, "\n    ")
  local source = FIELDS:format(record, locals, set, locals, set)
  local plain, uneven, begin = load(source, "=[cnf]", "t")(fn, lists, function(length)
    too_short(what, stream, length)
  end)
  local count, rests, short
  local function take()
    begin()
    count, rests, short = stream:fields(lists)
    return count
  end
  local function call()
    if rests or short then
      uneven(count, rests, short)
    else
      plain(count)
    end
  end
  return take, call
end

--- Calls the handler for each record of the stream, a batch between two waits.
local function deliver(what, stream, fn, problems)
  local names = stream:reads(fn)
  local take, call = (names and some_fields or whole)(what, stream, fn, names)
  while true do
    local count = take()
    local ok, problem = pcall(call)
    while not ok do
      failed(problems, what, problem)
      ok, problem = pcall(call)
    end
    if count == 0 then
      stream:wait()
    else
      task.sleep(0)
    end
  end
end

local function subscribe(what, stream, fn)
  local problems = { count = 0, unsaid = 0, next = 0 }
  return setmetatable({
    what = what,
    stream = stream,
    problems = problems,
    task = task.spawn(deliver, what, stream, fn, problems),
  }, Records)
end

local function need_function(op, subject, fn)
  if type(fn) ~= "function" then
    cnf.error({
      op = op,
      subject = subject,
      code = "EINVAL",
      message = "takes a handler function, got " .. (fn == nil and "nothing" or type(fn)),
    })
  end
end

local records = {}

function records.on_record(map, fn, options)
  need_function("map:on_record", map.name, fn)
  return subscribe(map.name, native.open(map, options), fn)
end

function records.trace(fn)
  need_function("bpf.trace", nil, fn)
  return subscribe("bpf_printk", native.trace(), fn)
end

return records
