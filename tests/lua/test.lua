--- The assertions, tested with themselves: each passes and fails where it should.
local cnf = require("cnf")
local test, task = cnf.test, cnf.task

local function failing(t, fn)
  local problem = t:raises(fn)
  return problem.message, problem.detail or ""
end

test.case("equal compares by contents", function(t)
  t:equal(1, 1)
  t:equal(0 / 0, 0 / 0)
  t:equal({ 1, { a = "b" } }, { 1, { a = "b" } })
  local cyclic, other = {}, {}
  cyclic.self, other.self = cyclic, other
  t:equal(cyclic, other)
end)

test.case("equal says where the two differ", function(t)
  local message, detail = failing(t, function()
    t:equal({ routes = { { via = "10.0.0.1" } } }, { routes = { { via = "10.0.0.2" } }, more = 1 })
  end)
  t:equal(message, "the values differ")
  t:ok(detail:find('value.routes[1].via: got      "10.0.0.1"', 1, true), detail)
  t:ok(detail:find('expected "10.0.0.2"', 1, true), detail)
  t:ok(detail:find("value.more: got      nothing", 1, true), detail)
end)

test.case("equal tells types apart", function(t)
  for _, pair in ipairs({ { 1, "1" }, { {}, false }, { { 1 }, {} }, { "a", "a\0" } }) do
    t:raises(function()
      t:equal(pair[1], pair[2])
    end)
  end
end)

test.case("equal names many differences, and stops", function(t)
  local many = {}
  for i = 1, 50 do
    many[i] = i
  end
  local _, detail = failing(t, function()
    t:equal(many, {})
  end)
  t:ok(detail:find("and 40 more differences", 1, true), detail)
end)

test.case("ok gives its value", function(t)
  t:equal(t:ok(7), 7)
  t:equal(
    failing(t, function()
      t:ok(nil, "there is a route")
    end),
    "there is a route"
  )
end)

test.case("raises takes codes, patterns and plain text", function(t)
  local function fail()
    cnf.error({ op = "link.veth", code = "EEXIST", message = "file exists [now]" })
  end
  t:equal(t:raises(fail).op, "link.veth")
  t:raises(fail, "EEXIST")
  t:raises(fail, "file %a+")
  t:raises(fail, "exists [now]")
  t:raises(function()
    t:raises(fail, "ENOENT")
  end, "another one than")
  t:raises(function()
    t:raises(function()
      return 42
    end)
  end, "returned 42")
end)

test.case("eventually waits, and takes errors for not yet", function(t)
  local ready = false
  task.after("50ms", function()
    ready = true
  end)
  t:equal(
    t:eventually(function()
      return assert(ready) and "done"
    end),
    "done"
  )
  t:raises(function()
    t:eventually(function()
      error("still closed")
    end, { within = "60ms", every = "10ms" })
  end)
end)

test.case("never fails at the first true value", function(t)
  t:never(function()
    return false
  end, { during = "30ms" })
  t:raises(function()
    t:never(function()
      return true
    end, { during = 10 })
  end, "became true")
end)

test.case("unknown options are refused", function(t)
  t:raises(function()
    t:eventually(function()
      return true
    end, { withn = 1 })
  end, "withn")
  t:raises(function()
    return t.equals
  end, "no field or method")
end)

local order = {}

test.case("what is deferred runs last first", function(t)
  for i = 1, 3 do
    t:defer(function()
      order[#order + 1] = i
    end)
  end
  t:equal(order, {})
end)

local turns = 0

test.case("the case before deferred in order, and this one leaves a task", function(t)
  t:equal(order, { 3, 2, 1 })
  task.every("1ms", function()
    turns = turns + 1
  end)
  t:eventually(function()
    return turns > 0
  end)
end)

test.case("tasks of an earlier case do not run any more", function(t)
  local seen = turns
  t:never(function()
    return turns > seen
  end, { during = "20ms" })
end)

test.case("a skip says why", function(t)
  local function skipping()
    t:skip("tested below")
  end
  local ok = pcall(skipping)
  t:ok(not ok)
  t.skipped = false
end)

test.case("two cases of one name are refused", function(t)
  t:raises(function()
    test.case("a skip says why", function() end)
  end, "EEXIST")
end)

test.case("assertions that are not spelt or called as they should be", function(t)
  local e = t:raises(function()
    t:eqaul(1, 1)
  end, 'Case: has no field or method "eqaul"')
  t:equal({ e.code, e.hint }, { "EINVAL", 'did you mean "equal"?' })
  t:raises(function()
    t.equal(1, 1)
  end, "t:equal: is a method of a Case, called on 1")
end)
