--- `test`: cases and assertions. `cnfscript test` loads a file, which registers its cases, and runs them one by one;
--- what each created is undone after it.

local _, cnf = ...

local native, show = cnf._test, cnf._show

local test = {}
local cases = {}

--- Raised by `t:skip`: unlike any error of the case itself.
local Skip = setmetatable({}, {
  __name = "skip",
  __tostring = function()
    return "t:skip was called where its error is caught and raised again as text"
  end,
})

local function fail(op, message, detail)
  cnf.error({ op = op, message = message, detail = detail })
end

function test.case(name, fn)
  if type(name) ~= "string" or type(fn) ~= "function" then
    cnf.error({
      op = "test.case",
      code = "EINVAL",
      message = ("takes a name and a function, got %s and %s"):format(type(name), type(fn)),
    })
  end
  for _, case in ipairs(cases) do
    if case.name == name then
      cnf.error({
        op = "test.case",
        subject = name,
        code = "EEXIST",
        message = "this file has a case of that name already",
      })
    end
  end
  -- Between this and the file is the frame that the library's functions stand on.
  cases[#cases + 1] = { name = name, fn = fn, line = debug.getinfo(3, "l").currentline }
end

-- Comparing --------------------------------------------------------------------------------------------------------

local function comparable(value)
  if type(value) ~= "table" then
    return false
  end
  local meta = debug.getmetatable(value)
  return not (meta and (rawget(meta, "__eq") or rawget(meta, "__name")))
end

local MISSING = setmetatable({}, {
  __tostring = function()
    return "nothing"
  end,
})

--- Appends `{path, got, expected}` for every place in which the two differ.
local function differences(got, expected, path, found, seen)
  if got == expected or (got ~= got and expected ~= expected) then
    return
  end
  if not (comparable(got) and comparable(expected)) then
    found[#found + 1] = { path, got, expected }
    return
  end
  if seen[got] == expected then
    return
  end
  seen[got] = expected
  local both = {}
  for key in next, got do
    both[key] = true
  end
  for key in next, expected do
    both[key] = true
  end
  for _, key in ipairs(show.sorted_keys(both)) do
    local name = show.key(key)
    local here = path .. (name:sub(1, 1) == "[" and name or "." .. name)
    local a, b = rawget(got, key), rawget(expected, key)
    if a == nil then
      a = MISSING
    end
    if b == nil then
      b = MISSING
    end
    differences(a, b, here, found, seen)
  end
end

local function described(found)
  local lines = {}
  for i, difference in ipairs(found) do
    if i > 10 then
      lines[#lines + 1] = ("... and %d more differences"):format(#found - 10)
      break
    end
    local path, got, expected = table.unpack(difference, 1, 3)
    lines[#lines + 1] = ("%s: got      %s"):format(path, show.value(got, { depth = 3 }))
    lines[#lines + 1] = ("%s  expected %s"):format(
      (" "):rep(#path),
      show.value(expected, { depth = 3 })
    )
  end
  return table.concat(lines, "\n")
end

-- The object that a case receives ----------------------------------------------------------------------------------

local Case = cnf._library.class("Case", "t", { "name" })

function Case:__tostring()
  return ("Case(%s)"):format(self.name)
end

function Case:equal(got, expected, message)
  local found = {}
  differences(got, expected, "value", found, {})
  if #found > 0 then
    fail("t:equal", message or "the values differ", described(found))
  end
end

function Case:ok(value, message)
  if not value then
    fail("t:ok", message or ("got %s, expected a true value"):format(tostring(value)))
  end
  return value
end

local function code_of(problem)
  return type(problem) ~= "string" and type(problem) ~= "nil" and problem.code or nil
end

local function safe_code(problem)
  local ok, code = pcall(code_of, problem)
  return ok and code or nil
end

function Case:raises(fn, pattern)
  local results = table.pack(pcall(fn))
  if results[1] then
    local what = "nothing"
    if results.n > 1 then
      what = show.value(results[2])
    end
    fail("t:raises", "no error was raised; the function returned " .. what)
  end
  local problem = results[2]
  if problem == Skip then
    error(problem, 0)
  end
  local text = tostring(problem)
  if pattern == nil or safe_code(problem) == pattern then
    return problem
  end
  local well_formed, from = pcall(string.find, text, pattern)
  if (well_formed and from) or text:find(pattern, 1, true) then
    return problem
  end
  fail(
    "t:raises",
    ("the error is another one than %s"):format(show.value(pattern)),
    ("raised: %s"):format(text)
  )
end

--- Calls `fn` until it gives a true value or the time is over; that value, or the last problem.
local function poll(fn, limit, every)
  local deadline = native.now() + limit
  while true do
    local ok, value = pcall(fn)
    if not ok and value == Skip then
      error(value, 0)
    end
    if ok and value then
      return value
    end
    if native.now() >= deadline then
      return nil, ok and "it returned " .. tostring(value) or tostring(value)
    end
    cnf.task.sleep(every)
  end
end

local function durations(op, options, known)
  local read = {}
  for word, default in pairs(known) do
    read[word] = native.seconds(default)
  end
  for word, value in pairs(options or {}) do
    if known[word] == nil then
      cnf.error({ op = op, code = "EINVAL", message = ('unknown option "%s"'):format(tostring(word)) })
    end
    read[word] = native.seconds(value)
  end
  return read
end

-- An emulated machine is many times slower than the ones that limits are written for.
local slowness = os.getenv("CNF_SLOW") and 5 or 1

function Case:eventually(fn, options)
  local times = durations("t:eventually", options, { within = 5, every = 0.02 })
  times.within = times.within * slowness
  local value, problem = poll(fn, times.within, times.every)
  if not value then
    fail("t:eventually", ("not true within %g s"):format(times.within), "last time: " .. problem)
  end
  return value
end

function Case:never(fn, options)
  local times = durations("t:never", options, { during = 1, every = 0.02 })
  local start = native.now()
  while true do
    local value = fn()
    if value then
      fail(
        "t:never",
        ("it became true after %.2f s"):format(native.now() - start),
        "it returned " .. show.value(value)
      )
    end
    if native.now() - start >= times.during then
      return
    end
    cnf.task.sleep(times.every)
  end
end

function Case:defer(fn)
  if type(fn) ~= "function" then
    cnf.error({ op = "t:defer", code = "EINVAL", message = "takes a function, got " .. type(fn) })
  end
  table.insert(self.deferred, fn)
end

local namespaces = 0

function Case:netns(name)
  namespaces = namespaces + 1
  local ns = cnf.netns.new(("%s-%s-%d"):format(name, native.pid(), namespaces))
  self:defer(function()
    local ok, problem = pcall(ns.delete, ns)
    -- The case may have deleted it itself.
    if not ok and safe_code(problem) ~= "ENODEV" and safe_code(problem) ~= "ENOENT" then
      error(problem, 0)
    end
  end)
  return ns
end

function Case:skip(why)
  self.skipped = tostring(why or "no reason given")
  error(Skip, 0)
end

function Case:requires(...)
  for _, feature in ipairs({ ... }) do
    local available, reason = cnf.probe_feature(feature)
    if not available then
      self:skip(reason or ("this system has no " .. feature))
    end
  end
end

-- For the runner ---------------------------------------------------------------------------------------------------

local function keep(problem)
  return problem
end

--- Runs one case -> "passed" | "failed" | "skipped", and the errors or the reason.
local function run(case)
  local t = setmetatable({ name = case.name, deferred = {}, skipped = false }, Case)
  local problems = {}
  local function attempt(fn, ...)
    local ok, problem = xpcall(fn, keep, ...)
    if not ok and problem ~= Skip then
      problems[#problems + 1] = problem == nil and "error value is nil" or problem
    end
  end
  -- Reachable from `finish`, which is called when `fn` did not come to its end.
  case.finish = function()
    case.finish = nil
    for i = #t.deferred, 1, -1 do
      attempt(t.deferred[i])
    end
    return problems
  end
  attempt(case.fn, t)
  case.finish()
  if #problems > 0 then
    return "failed", problems
  end
  return t.skipped and "skipped" or "passed", t.skipped or nil
end

local runner = {}

function runner.cases()
  return cases
end

runner.run = run

--- After a case that was cut off: what it deferred is still done.
function runner.finish(case)
  return case.finish and case.finish() or {}
end

--- Hidden from scripts: the runner asks for it by this key.
rawset(cnf._test, "runner", runner)

return test
