--- Commands and their pipes, with the faces of Lua's manual: they suspend the task that waits, and no other.
local cnf = require("cnf")
local test, task = cnf.test, cnf.task

test.case("os.execute tells how the command ended", function(t)
  t:equal({ os.execute("true") }, { true, "exit", 0 })
  t:equal({ os.execute("exit 3") }, { nil, "exit", 3 })
  t:equal({ os.execute("kill -TERM $$") }, { nil, "signal", 15 })
  t:equal(os.execute(), true)
end)

test.case("io.popen reads what a command writes", function(t)
  local pipe = io.popen("printf 'one\\ntwo\\n42\\nrest of it'; exit 2")
  t:equal(io.type(pipe), "file")
  t:equal({ pipe:read("l", "L", "n") }, { "one", "two\n", 42 })
  t:equal(pipe:read(4), "rest")
  t:equal(pipe:read("a"), " of it")
  t:equal(pipe:read("a"), "")
  t:equal(pipe:read("l"), nil)
  t:equal({ pipe:close() }, { nil, "exit", 2 })
  t:equal(io.type(pipe), "closed file")
  t:raises(function()
    pipe:read()
  end, "closed file")
  local lines = {}
  for line in io.popen("seq 3"):lines() do
    lines[#lines + 1] = line
  end
  t:equal(lines, { "1", "2", "3" })
end)

test.case("io.popen writes what a command reads", function(t)
  local name = os.tmpname()
  t:defer(function()
    os.remove(name)
  end)
  local pipe = io.popen("cat > " .. name, "w")
  t:equal(pipe:write("a", 1, "b\n"), pipe)
  t:equal({ pipe:close() }, { true, "exit", 0 })
  for line in io.lines(name) do
    t:equal(line, "a1b")
  end
end)

test.case("tasks go on while a command runs", function(t)
  local turns = 0
  task.every("5ms", function()
    turns = turns + 1
  end)
  os.execute("sleep 0.2")
  t:ok(turns > 5, "turns while waiting: " .. turns)
  turns = 0
  io.popen("sleep 0.2; echo done"):read()
  t:ok(turns > 5, "turns while reading: " .. turns)
end)

test.case("a timeout ends the wait for a command", function(t)
  t:raises(function()
    task.timeout("50ms", function()
      os.execute("exec sleep 5")
    end)
  end, "ETIMEDOUT")
end)

test.case("standard input at its end", function(t)
  t:equal(io.read(), nil)
  t:equal(io.read("a"), "")
  for _ in io.lines() do
    t:ok(false, "there is no line")
  end
end)
