--- Tasks: structured waiting.
local cnf = require("cnf")
local test, task = cnf.test, cnf.task

test.case("join gives results and errors", function(t)
  t:equal({ task.spawn(function(...)
    task.sleep(0)
    return ...
  end, 1, nil, 3):join() }, { 1, nil, 3 })
  local failing = task.spawn(function()
    cnf.error({ code = "EIO", message = "broken" })
  end)
  t:raises(function()
    failing:join()
  end, "EIO")
  t:equal(failing.status, "failed")
end)

test.case("waiting works in pcall, coroutines, iterators and metamethods", function(t)
  t:equal({ pcall(function()
    task.sleep("1ms")
    return "through pcall"
  end) }, { true, "through pcall" })
  local wrapped = coroutine.wrap(function()
    for i = 1, 3 do
      task.sleep("1ms")
      coroutine.yield(i)
    end
  end)
  t:equal({ wrapped(), wrapped(), wrapped() }, { 1, 2, 3 })
  local lazy = setmetatable({}, {
    __index = function(_, key)
      task.sleep("1ms")
      return key .. "!"
    end,
  })
  t:equal(lazy.waited, "waited!")
end)

test.case("all keeps the order, and cancels on an error", function(t)
  t:equal(
    task.all({
      function()
        task.sleep("20ms")
        return "slow"
      end,
      function()
        return "fast"
      end,
    }),
    { "slow", "fast" }
  )
  local other = task.spawn(task.sleep, 60)
  t:raises(function()
    task.all({
      other,
      function()
        error("first")
      end,
    })
  end, "first")
  t:equal(other.status, "cancelled")
end)

test.case("race cancels the losers", function(t)
  local loser = task.spawn(task.sleep, 60)
  t:equal(
    task.race({
      loser,
      function()
        return "won"
      end,
    }),
    "won"
  )
  t:equal(loser.status, "cancelled")
end)

test.case("timeout raises ETIMEDOUT", function(t)
  t:equal(
    task.timeout(5, function()
      return "in time"
    end),
    "in time"
  )
  t:raises(function()
    task.timeout("10ms", function()
      task.sleep(60)
    end)
  end, "ETIMEDOUT")
end)

test.case("cancel closes what is to be closed", function(t)
  local closed = false
  local waiting = task.spawn(function()
    local _ <close> = setmetatable({}, {
      __close = function()
        closed = true
      end,
    })
    task.sleep(60)
  end)
  task.sleep(0)
  waiting:cancel()
  t:ok(closed)
  t:raises(function()
    waiting:join()
  end, "ECANCELED")
end)

test.case("every goes on until cancelled, after runs once", function(t)
  local turns = 0
  local ticking = task.every("1ms", function()
    turns = turns + 1
  end)
  t:eventually(function()
    return turns >= 3
  end)
  ticking:cancel()
  local seen = turns
  t:never(function()
    return turns > seen
  end, { during = "20ms" })
  t:equal(task
    .after("1ms", function()
      return "once"
    end)
    :join(), "once")
end)

test.case("a channel hands over in order and ends", function(t)
  for _, capacity in ipairs({ 0, 1, 10 }) do
    local c = task.channel(capacity)
    task.spawn(function()
      for i = 1, 5 do
        c:send(i)
      end
      c:close()
    end)
    local got = {}
    for value in
      function()
        return c:recv()
      end
    do
      got[#got + 1] = value
    end
    t:equal(got, { 1, 2, 3, 4, 5 })
    t:raises(function()
      c:send(6)
    end, "EPIPE")
  end
end)

test.case("wrong arguments are refused at the call, as natives refuse them", function(t)
  local c, it = task.channel(), task.spawn(function() end)
  local function nothing() end
  local cases = {
    { "task.spawn: fn (first argument) must be a function, got nothing", task.spawn },
    { "task.every: interval (first argument) \"x\" is not a duration", task.every, "x", nothing },
    { "task.every: fn (second argument) must be a function, got nothing", task.every, 1 },
    { "task.after: delay (first argument) -1 is not a duration", task.after, -1, nothing },
    { "task.timeout: limit (first argument) must be a duration", task.timeout, nothing, 1 },
    { "task.timeout: fn (second argument) must be a function, got 3", task.timeout, 1, 3 },
    { "task.all: jobs (first argument) must be a table, got a function", task.all, nothing },
    { "task.all: jobs[2] must be a function or a Task, got \"x\"", task.all, { nothing, "x" } },
    { "task.all: jobs must be an array without holes or names", task.all, { nothing, fn = nothing } },
    { "task.race: jobs must have at least one function, got none", task.race, {} },
    { "task.race: jobs[1] must be a function or a Task, got a table", task.race, { {} } },
    { "task.channel: capacity (first argument) must be an integer from 0", task.channel, 1.5 },
    { "task:join: is a method of a Task, called on nothing", it.join },
    { "channel:send: is a method of a Channel, called on 3", c.send, 3 },
  }
  for _, case in ipairs(cases) do
    local e = t:raises(function()
      case[2](table.unpack(case, 3))
    end)
    t:ok(tostring(e):find(case[1], 1, true), ("%s, expected %s"):format(e, case[1]))
    t:equal(e.code, "EINVAL")
    t:ok(e.where and e.where:find("task%.lua:%d+$"), tostring(e.where))
  end
  t:raises(function()
    return c.capasity
  end, 'Channel: has no field or method "capasity"')
end)

test.case("a timeout ends what does not wait", function(t)
  local loops = {
    function()
      while true do
      end
    end,
    function()
      while true do
        pcall(function()
          while true do
          end
        end)
      end
    end,
    coroutine.wrap(function()
      while true do
      end
    end),
    function()
      task.all({
        function()
          while true do
          end
        end,
      })
    end,
    function()
      -- The outer limit is the earlier one.
      task.timeout(60, function()
        while true do
          pcall(error)
        end
      end)
    end,
  }
  for i, loop in ipairs(loops) do
    local start = task.now()
    local other = task.spawn(function()
      task.sleep("10ms")
      return "others go on"
    end)
    local e = t:raises(function()
      task.timeout("50ms", loop)
    end, "ETIMEDOUT")
    t:ok(tostring(e):find("not done within 50ms", 1, true), tostring(e))
    t:ok(task.now() - start < 5, ("loop %d took %.2f s"):format(i, task.now() - start))
    t:equal(other:join(), "others go on")
    -- Whoever has waited for it may be as busy as it likes.
    local sum = 0
    for n = 1, 1e6 do
      sum = sum + n
    end
    t:equal(sum, 500000500000)
  end
end)

test.case("what runs for a cancelled task ends with it", function(t)
  local started, ended = {}, {}
  local function waiting(name)
    return function()
      local guard <close> = setmetatable({}, {
        __close = function()
          ended[#ended + 1] = name
        end,
      })
      started[#started + 1] = name
      task.sleep(60)
      return guard
    end
  end
  local function cancelled(count, fn, ...)
    local runs = task.spawn(fn, ...)
    t:eventually(function()
      return #started == count
    end)
    t:equal(ended, {})
    runs:cancel()
    table.sort(ended)
  end
  cancelled(2, task.all, { waiting("one"), waiting("two") })
  t:equal(ended, { "one", "two" })
  started, ended = {}, {}
  cancelled(1, task.timeout, 50, waiting("limited"))
  t:equal(ended, { "limited" })
  started, ended = {}, {}
  local kept = task.spawn(waiting("kept"))
  cancelled(2, task.race, { kept, waiting("raced") })
  t:equal(ended, { "raced" })
  t:equal(kept.status, "running", "it was a task before")
  kept:cancel()
  -- A limit that passes is such an end, too.
  started, ended = {}, {}
  t:raises(function()
    task.timeout("1s", function()
      task.all({ waiting("inside") })
    end)
  end, "ETIMEDOUT")
  t:equal(ended, { "inside" })
end)
