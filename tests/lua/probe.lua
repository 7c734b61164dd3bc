--- Probes: ping, TCP, UDP and their servers, IPv4 and IPv6 alike.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local test, probe, task = cnf.test, cnf.probe, cnf.task
local pair, refused = require("pair"), require("refused")

local V4, V6 = { "10.0.0.1", "10.0.0.2", "10.0.0.%s:%d" }, { "fd00::1", "fd00::2", "[fd00::%s]:%d" }

for _, family in ipairs({ V4, V6 }) do
  local mine, theirs, place = table.unpack(family)
  local function at(port, host)
    return place:format(host or 2, port)
  end

  test.case("ping " .. theirs, function(t)
    local a, _, v = pair(t)
    local r = probe.ping(a, theirs, { count = 5, interval = "10ms", size = 1000, timeout = 3 })
    t:equal({ r.sent, r.received, r.loss, r.error }, { 5, 5, 0.0, nil })
    t:ok(r.rtt.min > 0 and r.rtt.min <= r.rtt.avg and r.rtt.avg <= r.rtt.max)
    t:equal(probe.ping(a, mine, { count = 1, timeout = 3 }).received, 1, "itself")
    t:equal(probe.ping(a, theirs, { count = 1, source = mine, dev = v, timeout = 3 }).received, 1)
  end)

  test.case("ping: loss is a result, " .. theirs, function(t)
    local a, b, _, w = pair(t)
    local nobody = theirs:gsub("2$", "9")
    local r = probe.ping(a, nobody, { count = 3, interval = 0.01, timeout = 0.2 })
    t:equal({ r.sent, r.received, r.loss, r.rtt }, { 3, 0, 1.0, {} })
    w:down()
    r = probe.ping(a, theirs, { count = 2, interval = 0.01, timeout = 0.2 })
    t:equal({ r.received, r.loss }, { 0, 1.0 })
    local far = family == V4 and "192.0.2.1" or "2001:db8::1"
    r = probe.ping(a, far, { count = 1, timeout = 0.2 })
    t:equal({ r.received, r.error }, { 0, "ENETUNREACH" })
    t:equal(#b:links(), 2)
  end)

  test.case("ping: many at once do not mix, " .. theirs, function(t)
    local a = pair(t)
    local jobs = {}
    for i = 1, 20 do
      jobs[i] = function()
        return probe.ping(a, theirs, { count = 5, interval = 0.01, timeout = 3 }).received
      end
    end
    for _, received in ipairs(task.all(jobs)) do
      t:equal(received, 5)
    end
  end)

  test.case("ping: packets that are too big and may not be cut, " .. theirs, function(t)
    local a, _, v, w = pair(t)
    v:set({ mtu = 1400 })
    w:set({ mtu = 1400 })
    for _, row in ipairs({ { 1300, true, 1, nil }, { 1400, true, 0, "EMSGSIZE" }, { 1400, false, 1, nil } }) do
      local r = probe.ping(a, theirs, { count = 1, size = row[1], df = row[2], timeout = 3 })
      t:equal({ r.received, r.error }, { row[3], row[4] }, "size " .. row[1])
    end
  end)

  test.case("tcp: connect, send, read to the end, " .. theirs, function(t)
    local a, b = pair(t)
    local echo = probe.serve(b, { tcp = 0 })
    local fixed = probe.serve(b, { tcp = 80, reply = "hello" })
    t:equal(fixed.port, 80)
    local r = probe.tcp(a, at(80))
    t:equal(r.reply, "hello")
    t:ok(r.connect > 0 and r.connect <= r.total and r.total < 3)
    t:equal(probe.tcp(a, at(80), { send = "ignored" }).reply, "hello")
    local bytes = ("\0x\255"):rep(100000)
    t:ok(probe.tcp(a, at(echo.port), { send = bytes, source = mine }).reply == bytes)
    t:equal(echo:stats(), { requests = 1, bytes = #bytes })
    t:eventually(function()
      return fixed:stats().requests == 2
    end)
  end)

  test.case("tcp: refused and timed out, " .. theirs, function(t)
    local a, b, _, w = pair(t)
    local error = t:raises(function()
      probe.tcp(a, at(81))
    end, "ECONNREFUSED")
    t:ok(tostring(error):find(at(81), 1, true), tostring(error))
    local server = probe.serve(b, { tcp = 82, reply = "x" })
    t:equal(probe.tcp(a, at(82)).reply, "x")
    server:stop()
    t:eventually(function()
      local ok, problem = pcall(probe.tcp, a, at(82))
      return not ok and problem.code == "ECONNREFUSED"
    end)
    w:down()
    t:raises(function()
      probe.tcp(a, at(82), { timeout = "100ms" })
    end, "ETIMEDOUT")
  end)

  test.case("udp: asked and answered, also on a virtual address, " .. theirs, function(t)
    local a, b = pair(t)
    local server = probe.serve(b, { udp = 53 })
    local virtual = family == V4 and "192.168.7.7" or "fd07::7"
    b:link("lo"):add_address(virtual)
    a:route({ dst = virtual, via = theirs })
    t:equal(probe.udp(a, at(53)).reply, "probe")
    t:equal(probe.udp(a, at(53), { send = "\0\255" }).reply, "\0\255")
    local there = (family == V4 and "%s:53" or "[%s]:53"):format(virtual)
    -- The client's socket is connected: it hears no answer from another address.
    t:equal(probe.udp(a, there, { send = "vip" }).reply, "vip")
    t:equal(server:stats().requests, 3)
    t:raises(function()
      probe.udp(a, at(54))
    end, "ECONNREFUSED")
  end)

  test.case("serve on one address, " .. theirs, function(t)
    local a, b = pair(t)
    b:link("lo"):add_address(family == V4 and "10.9.0.1" or "fd09::1")
    probe.serve(b, { tcp = 80, reply = "one", address = theirs })
    t:equal(probe.tcp(a, at(80)).reply, "one")
    t:raises(function()
      probe.tcp(b, (family == V4 and "10.9.0.1:80" or "[fd09::1]:80"))
    end, "ECONNREFUSED")
    t:raises(function()
      probe.serve(b, { tcp = 80, address = theirs })
    end, "EADDRINUSE")
    t:raises(function()
      probe.serve(b, { tcp = 81, address = mine })
    end, "EADDRNOTAVAIL")
  end)
end

test.case("a server goes on while another task computes nothing", function(t)
  local a, b = pair(t)
  local server = probe.serve(b, { tcp = 80, reply = "x" })
  local jobs = {}
  for i = 1, 50 do
    jobs[i] = function()
      return probe.tcp(a, i % 2 == 0 and "10.0.0.2:80" or "[fd00::2]:80").reply
    end
  end
  for _, reply in ipairs(task.all(jobs)) do
    t:equal(reply, "x")
  end
  t:eventually(function()
    return server:stats().requests == 50
  end)
end)

test.case("bad arguments", function(t)
  local a = pair(t)
  for _, row in ipairs({
    { "must be a Netns", probe.ping, 10 },
    { "not an IP address", probe.ping, a, "10.0.0" },
    { "count", probe.ping, a, "10.0.0.2", { count = 0 } },
    { 'did you mean "count"', probe.ping, a, "10.0.0.2", { cuont = 1 } },
    { "not a duration", probe.ping, a, "10.0.0.2", { timeout = "soon" } },
    { "not an address with a port", probe.tcp, a, "10.0.0.2" },
    { "not an address with a port", probe.udp, a, "fd00::2:53" },
    { "one of tcp and udp", probe.serve, a, {} },
    { "one of tcp and udp", probe.serve, a, { tcp = 1, udp = 1 } },
    { "tcp must be an integer from 0 to 65535", probe.serve, a, { tcp = 70000 } },
  }) do
    refused(t, "EINVAL", table.unpack(row))
  end
end)
