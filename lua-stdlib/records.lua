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

--- Calls the handler for each record of the stream, a batch between two waits.
local function deliver(what, stream, fn, problems)
  while true do
    local records, count, rests, short = stream:take()
    local i = 0
    local function rest_of_batch()
      while i < count do
        i = i + 1
        if short and short[i] then
          too_short(what, stream, short[i])
        end
        fn(records[i], rests and rests[i])
      end
    end
    while i < count do
      local ok, problem = pcall(rest_of_batch)
      if not ok then
        failed(problems, what, problem)
      end
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
