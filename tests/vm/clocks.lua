--- The wall clock jumps by more than a year, there and back, in the midst of all that waits: nothing is early, late or lost.
--- Only where the machine is the test's own: tests/vm/run says so on the kernel's command line.

local cnf = require("cnf")
package.path = (debug.getinfo(1, "S").source:match("^@(.*)vm/[^/]*$") or "../") .. "lib/?.lua;" .. package.path
local instance, json = require("instance"), require("json")
local test, netns, link, probe, task, chaos = cnf.test, cnf.netns, cnf.link, cnf.probe, cnf.task, cnf.chaos

local DAY = 24 * 3600
local JUMPS = { 400 * DAY, -800 * DAY, 400 * DAY }
-- What waiting may take longer where every instruction is emulated.
local SLACK = 30

--- What sets the clock, by seconds; after the case it is right again.
local function clock(t)
  local file <close> = assert(io.open("/proc/cmdline"))
  if not file:read("a"):find("CNF_VM_RUN=", 1, true) then
    t:skip("the clock of this machine is not the test's own, as that of tests/vm/run is")
  end
  local host, wall, start = netns.host(), os.time(), task.now()
  local function set(seconds)
    host:exec({ "date", "-s", ("@%d"):format(math.floor(seconds)) })
  end
  t:defer(function()
    set(wall + task.now() - start)
  end)
  return function(seconds)
    local before = os.time()
    set(before + seconds)
    t:ok(math.abs(os.time() - before - seconds) < SLACK, "the clock was set")
  end
end

local function pair(t)
  local a, b = t:netns("a"), t:netns("b")
  link.veth({ name = "near", netns = a, address = "10.93.0.1/24", peer = { name = "far", netns = b, address = "10.93.0.2/24" } })
  return a
end

--- That it took as long as it was to take.
local function took(t, start, seconds)
  local elapsed = task.now() - start
  t:ok(elapsed >= seconds and elapsed < seconds + SLACK, ("%.1f s instead of %g"):format(elapsed, seconds))
end

test.case("sleeping, timeouts and intervals", function(t)
  local jump = clock(t)
  local ticks, began = 0, task.now()
  local every = task.every("200ms", function()
    ticks = ticks + 1
  end)
  for _, seconds in ipairs(JUMPS) do
    local start, before = task.now(), ticks
    local sleeping = task.spawn(function()
      task.sleep("2s")
      took(t, start, 2)
    end)
    local limited = task.spawn(function()
      local ok, problem = pcall(task.timeout, "2s", function()
        task.sleep("1h")
      end)
      t:equal({ ok, problem.code }, { false, "ETIMEDOUT" })
      took(t, start, 2)
    end)
    task.sleep("100ms")
    jump(seconds)
    sleeping:join()
    limited:join()
    t:eventually(function()
      return ticks > before + 2
    end, { within = SLACK })
    t:ok(ticks <= (task.now() - began) / 0.2 + 1, "none comes early")
  end
  every:cancel()
end)

test.case("probes measure and give up by another clock", function(t)
  local jump = clock(t)
  local a = pair(t)
  for _, seconds in ipairs(JUMPS) do
    local start = task.now()
    local nobody = task.spawn(function()
      t:equal(probe.ping(a, "10.93.0.9", { count = 1, timeout = "3s" }).received, 0)
      took(t, start, 3)
    end)
    local answered = task.spawn(function()
      local seen = probe.ping(a, "10.93.0.2", { count = 5, interval = "500ms", timeout = 10 })
      t:equal(seen.received, 5)
      t:ok(seen.rtt.min >= 0 and seen.rtt.max < SLACK, seen.rtt.max)
    end)
    task.sleep("600ms")
    jump(seconds)
    nobody:join()
    answered:join()
  end
end)

test.case("a fault ends when its time is over", function(t)
  local jump = clock(t)
  local a = pair(t)
  local near = a:link("near")
  local function reaches()
    return probe.ping(a, "10.93.0.2", { count = 1, timeout = "1s" }).received == 1
  end
  t:ok(reaches())
  for _, seconds in ipairs(JUMPS) do
    local start = task.now()
    local fault = chaos.inject(near, { blackhole = true, duration = "10s" })
    jump(seconds)
    local left = fault:info().remaining
    t:ok(left > 0 and left <= 10, left)
    t:ok(not reaches() or task.now() - start > 10)
    t:eventually(reaches, { within = SLACK })
    took(t, start, 10)
    fault:heal()
  end
end)

test.case("an instance is watched, reloaded and told of", function(t)
  local jump = clock(t)
  local name = t:netns("x").name .. "-in"
  local function text(n)
    return ([[
      local a = cnf.netns.new("%s")
      a:sysctl("net.ipv4.ip_forward", %d)
      if cnf.generation > 1 then cnf.task.sleep("1s") end
      cnf.task.every("200ms", function() print("tick of", %d) end)
    ]]):format(name, n % 2, n)
  end
  local one = instance(t, text(0), "--watch")
  local start = task.now()
  local function status()
    return json.decode(one.run("status", "--json", "one").stdout)
  end
  --- Waits until the tasks of that version have run on.
  local function ticks(n)
    local function count()
      return select(2, one.run("logs", "one").stdout:gsub("tick of\t" .. n .. "\n", ""))
    end
    local before = count()
    t:eventually(function()
      return count() > before + 1
    end, { within = SLACK })
  end
  local version = 0
  for _, seconds in ipairs(JUMPS) do
    jump(seconds)
    ticks(version)
    -- What is saved now is older, or much newer, than what was read.
    version = version + 1
    one.write(text(version))
    ticks(version)
    -- In the middle of a load.
    version = version + 1
    local reloading = task.spawn(one.run, "reload", "one")
    one.write(text(version))
    task.sleep("500ms")
    jump(-seconds)
    jump(seconds)
    local said = reloading:join()
    t:equal(said.code, 0, said.stderr)
    ticks(version)
    t:equal(status().state, "running")
    local uptime = status().uptime
    local elapsed = task.now() - start
    t:ok(uptime >= elapsed - 1 and uptime < elapsed + SLACK, ("up %g s after %g"):format(uptime, elapsed))
  end
  t:equal(one.run("down", "one").code, 0)
  t:ok(not netns.exists(name))
end)
