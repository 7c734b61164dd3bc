--- `task`: structured waiting on top of the host's coroutines: join, all, race, timeout, channels.

local native, cnf = ...

local library = cnf._library
local check = library.check

local task = { sleep = native.sleep, now = native.now }

-- Task -------------------------------------------------------------------------------------------------------------

local Task = library.class("Task", "task", { "id", "status" })
local by_coroutine = setmetatable({}, { __mode = "k" })

function Task:__tostring()
  return ("Task(%d, %s)"):format(self.id, self.status)
end

local function new_task()
  -- `results` and `problem` exist from the start so that reading them is not an unknown field.
  return setmetatable({
    id = 0,
    status = "running",
    results = false,
    problem = false,
    shown = false,
    joiners = 0,
    reported = false,
    done = native.signal(),
  }, Task)
end

local function finish(t, ok, ...)
  if ok then
    t.status, t.results = "done", table.pack(...)
  else
    t.status, t.problem = "failed", { (...) }
  end
  t.done:notify()
  if not ok and t.joiners == 0 then
    -- One more turn, so that a join in the same breath still takes it.
    native.sleep(0)
    if t.joiners == 0 then
      t.reported = true
      native.failed(t.id, t.shown or t.problem[1])
    end
  end
end

--- Runs `fn(...)` as a task of its own.
function task.spawn(fn, ...)
  check("task.spawn", 1, "fn", "function", fn)
  local t, args = new_task(), table.pack(...)
  t.id = native.start(function()
    by_coroutine[coroutine.running()] = t
    finish(t, xpcall(fn, function(problem)
      -- Whoever joins gets what was raised; what is printed knows its line.
      t.shown = native.located(problem)
      return problem
    end, table.unpack(args, 1, args.n)))
  end)
  return t
end

--- Waits for the task; its results, or its error raised here.
function Task:join()
  if by_coroutine[coroutine.running()] == self then
    cnf.error({ op = "task:join", code = "EDEADLK", message = "a task cannot join itself" })
  end
  self.joiners = self.joiners + 1
  while self.status == "running" do
    self.done:wait()
  end
  if self.status == "done" then
    return table.unpack(self.results, 1, self.results.n)
  end
  if self.status == "cancelled" then
    cnf.error({ op = "task:join", code = "ECANCELED", message = "the task was cancelled" })
  end
  if self.reported then
    native.forgiven(self.id)
  end
  error(self.problem[1], 0)
end

--- Ends the task where it waits; its to-be-closed variables are closed. Nothing happens to one that has ended.
function Task:cancel()
  if self.status ~= "running" then
    return
  end
  self.status = "cancelled"
  local co = native.stop(self.id)
  self.done:notify()
  if co == coroutine.running() then
    -- Its own end: it never runs again once it waits.
    native.signal():wait()
  elseif co then
    coroutine.close(co)
  end
end

-- Time -------------------------------------------------------------------------------------------------------------

--- Calls `fn` every `interval`, waiting that long before each call, until cancelled.
function task.every(interval, fn)
  interval = check("task.every", 1, "interval", "duration", interval)
  check("task.every", 2, "fn", "function", fn)
  return task.spawn(function()
    while true do
      native.sleep(interval)
      fn()
    end
  end)
end

--- Calls `fn` once, after `delay`.
function task.after(delay, fn)
  delay = check("task.after", 1, "delay", "duration", delay)
  check("task.after", 2, "fn", "function", fn)
  return task.spawn(function()
    native.sleep(delay)
    return fn()
  end)
end

-- Several at once --------------------------------------------------------------------------------------------------

--- Refuses what is no array of functions and tasks before any of them starts.
local function check_jobs(op, jobs)
  check(op, 1, "jobs", "table", jobs)
  local count = 0
  for _ in next, jobs do
    count = count + 1
  end
  local function refuse(message, ...)
    cnf.error({ op = op, code = "EINVAL", message = message:format(...) })
  end
  if count ~= #jobs then
    refuse("jobs must be an array without holes or names")
  end
  for i, job in ipairs(jobs) do
    if type(job) ~= "function" and getmetatable(job) ~= Task then
      refuse("jobs[%d] must be a function or a Task, got %s", i, library.describe(job))
    end
  end
end

local function cancel_all(tasks)
  for _, t in ipairs(tasks) do
    t:cancel()
  end
end

--- Several tasks that end with whoever waits for them, apart from those that were tasks before.
local Group = {}

function Group:__close()
  cancel_all(self.watchers)
  cancel_all(self.started)
end

--- Starts the jobs, each of which must end when the one that waits for it must; what they come to arrives in `finished`.
local function start_all(op, jobs)
  check_jobs(op, jobs)
  local group = setmetatable({ tasks = {}, started = {}, watchers = {}, finished = task.channel(#jobs) }, Group)
  local limit = native.limit()
  for i, job in ipairs(jobs) do
    local t = job
    if getmetatable(job) ~= Task then
      t = task.spawn(limit and function()
        native.set_limit(limit)
        return job()
      end or job)
      table.insert(group.started, t)
    end
    t.joiners = t.joiners + 1
    group.tasks[i] = t
    group.watchers[i] = task.spawn(function()
      group.finished:send({ i, table.pack(pcall(t.join, t)) })
    end)
  end
  return group
end

--- Runs all of them; an array of their first results. The first error cancels the others and is raised.
function task.all(jobs)
  local group <close> = start_all("task.all", jobs)
  local results = {}
  for _ = 1, #group.tasks do
    local i, outcome = table.unpack(group.finished:recv())
    if not outcome[1] then
      cancel_all(group.tasks)
      error(outcome[2], 0)
    end
    results[i] = outcome[2]
  end
  return results
end

--- The results of whichever ends first; the others are cancelled.
function task.race(jobs)
  local group <close> = start_all("task.race", jobs)
  if #group.tasks == 0 then
    cnf.error({ op = "task.race", code = "EINVAL", message = "jobs must have at least one function, got none" })
  end
  local _, outcome = table.unpack(group.finished:recv())
  cancel_all(group.tasks)
  if not outcome[1] then
    error(outcome[2], 0)
  end
  return table.unpack(outcome, 2, outcome.n)
end

--- fn's results, or ETIMEDOUT after `limit`, whether fn waits or not.
function task.timeout(limit, fn)
  local seconds = check("task.timeout", 1, "limit", "duration", limit)
  check("task.timeout", 2, "fn", "function", fn)
  local expired = {}
  local at = native.now() + seconds
  local results = table.pack(task.race({
    function()
      native.set_limit(at)
      return fn()
    end,
    function()
      native.sleep(seconds)
      return expired
    end,
  }))
  if results[1] == expired then
    cnf.error({
      op = "task.timeout",
      code = "ETIMEDOUT",
      message = ("not done within %s"):format(type(limit) == "number" and limit .. " s" or limit),
    })
  end
  return table.unpack(results, 1, results.n)
end

-- Channels ---------------------------------------------------------------------------------------------------------

local Channel = library.class("Channel", "channel")

function Channel:__tostring()
  return ("Channel(%d of %d)"):format(self.last - self.first + 1, self.capacity)
end

--- A queue between tasks: `send` waits while `capacity` values are in it (0: until one is received).
function task.channel(capacity)
  capacity = capacity == nil and 0 or check("task.channel", 1, "capacity", "count", capacity)
  return setmetatable({
    capacity = capacity,
    values = {},
    first = 1,
    last = 0,
    receivers = 0,
    closed = false,
    changed = native.signal(),
  }, Channel)
end

function Channel:send(value)
  while not self.closed and self.last - self.first + 1 >= self.capacity + self.receivers do
    self.changed:wait()
  end
  if self.closed then
    cnf.error({ op = "channel:send", code = "EPIPE", message = "the channel is closed" })
  end
  self.last = self.last + 1
  self.values[self.last] = { value }
  self.changed:notify()
end

--- The next value; nil once the channel is closed and empty.
function Channel:recv()
  self.receivers = self.receivers + 1
  self.changed:notify()
  while self.first > self.last and not self.closed do
    self.changed:wait()
  end
  self.receivers = self.receivers - 1
  if self.first > self.last then
    return nil
  end
  local value = self.values[self.first][1]
  self.values[self.first] = nil
  self.first = self.first + 1
  self.changed:notify()
  return value
end

--- Ends the channel: waiting senders fail, receivers get what is left and then nil.
function Channel:close()
  self.closed = true
  self.changed:notify()
end

return task
