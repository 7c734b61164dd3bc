--- Programs inside a namespace.
local cnf = require("cnf")
local test, netns, task = cnf.test, cnf.netns, cnf.task

test.case("exec: words, shell lines, output, status", function(t)
  local ns = t:netns("exec")
  for _, row in ipairs({
    { { "echo", "a b", 7 }, "a b 7\n" },
    { "echo $((1 + 2)) | cat", "3\n" },
    { { "printf", "a\\0b" }, "a\0b" },
  }) do
    t:equal(ns:exec(row[1]), { code = 0, stdout = row[2], stderr = "" })
  end
  t:equal(ns:exec("echo out; echo err >&2; exit 3", { check = false }), { code = 3, stdout = "out\n", stderr = "err\n" })
  t:equal(ns:exec("kill -TERM $$", { check = false }).code, 128 + 15)
end)

test.case("exec: a failure raises, with what it said", function(t)
  local ns = t:netns("fail")
  local error = t:raises(function()
    ns:exec("echo why >&2; exit 3")
  end, "EXIT")
  t:ok(tostring(error):find("status 3", 1, true), tostring(error))
  t:equal(error.detail, "why")
  error = t:raises(function()
    ns:exec({ "/no/such/program" })
  end, "ENOENT")
  t:ok(tostring(error):find('no program "/no/such/program"', 1, true), tostring(error))
  for _, bad in ipairs({ {}, { {} }, 7, false }) do
    t:raises(function()
      ns:exec(bad)
    end, "EINVAL")
  end
  t:raises(function()
    ns:exec("true", { timout = 1 })
  end, "unknown option")
end)

test.case("exec: stdin, env, timeout", function(t)
  local ns = t:netns("options")
  local much = ("x"):rep(300000)
  t:equal(#ns:exec({ "cat" }, { stdin = much }).stdout, #much)
  t:equal(ns:exec("head -c 3", { stdin = much }).stdout, "xxx")
  t:equal(ns:exec("echo $A $B", { env = { A = "one", B = 2 } }).stdout, "one 2\n")
  t:equal(ns:exec({ "cat" }).stdout, "", "no input unless given")
  local error = t:raises(function()
    ns:exec("sleep 100 & echo $! > /tmp/cnf-" .. ns.name .. "; wait", { timeout = "1500ms" })
  end, "ETIMEDOUT")
  t:ok(tostring(error):find("1.5s", 1, true), tostring(error))
  local pid = ns:exec({ "cat", "/tmp/cnf-" .. ns.name }).stdout:match("%d+")
  os.remove("/tmp/cnf-" .. ns.name)
  t:eventually(function()
    return ns:exec({ "test", "-d", "/proc/" .. pid }, { check = false }).code == 1
  end)
end)

test.case("exec: waits alone; others go on", function(t)
  local ns = t:netns("wait")
  local order = {}
  local slow = task.spawn(function()
    ns:exec("sleep 0.3")
    order[#order + 1] = "slow"
  end)
  ns:exec("true")
  order[#order + 1] = "fast"
  slow:join()
  t:equal(order, { "fast", "slow" })
end)

--- Whether some process is in the namespace.
local function busy(ns)
  return netns.host():exec({ "ip", "netns", "pids", ns.name }).stdout ~= ""
end

test.case("exec: ends with its task, children too", function(t)
  local ns = t:netns("cancel")
  for _, give_up in ipairs({
    function()
      local job = task.spawn(function()
        ns:exec("sleep 100 & sleep 100 & wait")
      end)
      t:eventually(function()
        return busy(ns)
      end)
      job:cancel()
    end,
    function()
      t:raises(function()
        task.timeout("100ms", function()
          ns:exec("sleep 100 & wait")
        end)
      end, "ETIMEDOUT")
    end,
  }) do
    give_up()
    t:eventually(function()
      return not busy(ns)
    end)
  end
end)

test.case("spawn: lines as they come, write, wait", function(t)
  local ns = t:netns("spawn")
  local p = ns:spawn({ "cat" })
  t:ok(p.pid > 1)
  local lines = p:lines()
  for _, text in ipairs({ "one", "two", "\255 not text" }) do
    p:write(text .. "\n")
    t:equal(lines(), text)
  end
  p:write("no newline")
  p:write(nil)
  t:equal(lines(), "no newline")
  t:equal(lines(), nil)
  t:equal(p:wait(), { code = 0 })
  t:equal(p:wait(), { code = 0 }, "again")
  t:raises(function()
    p:write("x")
  end, "EPIPE")
  t:ok(tostring(p):find("cat", 1, true))
end)

test.case("spawn: what nobody reads does not stop it", function(t)
  local p = t:netns("flood"):spawn("seq 1 100000; exit 5")
  t:equal(p:wait(20).code, 5)
  local last
  for line in p:lines() do
    last = line
  end
  t:equal(last, "100000")
end)

test.case("spawn: kill takes names and numbers, and the children too", function(t)
  local ns = t:netns("kill")
  for signal, number in pairs({ TERM = 15, SIGKILL = 9, [2] = 2, int = 2 }) do
    -- Not through a shell: one that is still starting can swallow a signal.
    local p = ns:spawn({ "sleep", "100" })
    p:kill(signal)
    t:equal(p:wait(5).code, 128 + number)
    p:kill()
  end
  local p = ns:spawn("sleep 100 & sleep 100 & echo ready; wait")
  t:equal(p:lines()(), "ready")
  p:kill()
  p:wait(5)
  t:eventually(function()
    return not busy(ns)
  end)
  local error = t:raises(function()
    ns:spawn("sleep 100"):kill("TREM")
  end, "EINVAL")
  t:ok(tostring(error):find("TREM", 1, true))
end)

test.case("spawn: a wait that is too long, a program that is not there", function(t)
  local ns = t:netns("long")
  local p = ns:spawn("sleep 100")
  t:raises(function()
    p:wait("50ms")
  end, "ETIMEDOUT")
  t:raises(function()
    ns:spawn({ "no-such-program-here" })
  end, "ENOENT")
end)

test.case("a program sees its namespace's /sys and /etc/netns files", function(t)
  local ns = t:netns("etc")
  local directory = "/etc/netns/" .. ns.name
  if not pcall(ns.exec, ns, { "mkdir", "-p", directory }) then
    t:skip("/etc is read-only")
  end
  t:defer(function()
    netns.host():exec({ "rm", "-r", directory })
  end)
  netns.host():exec("echo nameserver 192.0.2.53 > " .. directory .. "/resolv.conf")
  t:equal(ns:exec({ "cat", "/etc/resolv.conf" }).stdout, "nameserver 192.0.2.53\n")
  t:equal(ns:exec("cd /sys/class/net && echo */").stdout, "lo/\n")
end)
