--- Accounting by flow: what is counted, for which flow, and what samples say.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local pair = require("pair")
local flow, probe, test = cnf.flow, cnf.probe, cnf.test

--- The one flow that has all of these.
local function find(t, flows, fields)
  local found
  for _, one in ipairs(flows:list()) do
    local same = true
    for name, value in pairs(fields) do
      same = same and one[name] == value
    end
    if same then
      t:ok(not found, "one flow only")
      found = one
    end
  end
  return found
end

test.case("packets and bytes, both families, both directions", function(t)
  local client, server, near = pair(t)
  local flows = flow.account({ link = near })
  probe.serve(server, { udp = 7, reply = ("r"):rep(50) })
  local before = os.time()
  for _, row in ipairs({
    { "10.0.0.2:7", "10.0.0.1", "10.0.0.2", 20 },
    { "[fd00::2]:7", "fd00::1", "fd00::2", 40 },
  }) do
    local to, a, b, head = table.unpack(row)
    probe.udp(client, to, { send = ("s"):rep(100) })
    local out = find(t, flows, { from = a, to = b, proto = "udp", dport = 7 })
    t:equal({ out.packets, out.bytes, out.direction }, { 1, head + 8 + 100, "egress" })
    local back = find(t, flows, { from = b, to = a, proto = "udp", sport = 7 })
    t:equal({ back.packets, back.bytes, back.direction }, { 1, head + 8 + 50, "ingress" })
    t:equal(back.dport, out.sport)
    t:equal(out.flags, nil)
    t:ok(out.first >= before - 1 and out.last <= os.time() + 1 and out.first <= back.first)
  end
  probe.ping(client, "10.0.0.2", { count = 7, interval = 0.01, size = 56 })
  local echo = find(t, flows, { proto = "icmp", direction = "egress" })
  t:equal({ echo.packets, echo.bytes, echo.sport }, { 7, 7 * 84, nil })
  t:ok(echo.last - echo.first >= 0.05 and echo.last - echo.first < 5)
end)

test.case("a TCP connection, its flags and its segments", function(t)
  local client, server, near = pair(t)
  local text = ("0123456789abcdef"):rep(4096)
  probe.serve(server, { tcp = 80, reply = "thanks" })
  local flows = flow.account({ link = near, match = { proto = "tcp" } })
  t:equal(probe.tcp(client, "10.0.0.2:80", { send = text }).reply, "thanks")
  t:eventually(function()
    local back = find(t, flows, { direction = "ingress" })
    return back and #back.flags == 4
  end)
  local out = find(t, flows, { direction = "egress" })
  t:equal(out.flags, { "FIN", "SYN", "PSH", "ACK" })
  t:equal(out.dport, 80)
  -- Segments of 1448 bytes, with 52 of headers each, and a few packets without data.
  local segments = math.ceil(#text / 1448)
  t:ok(out.packets >= segments and out.packets <= segments + 40, tostring(out.packets))
  t:ok(out.bytes >= #text + segments * 52 and out.bytes <= #text + out.packets * 60, tostring(out.bytes))
  t:equal(#flows:list(), 2)
  local stats = flows:stats()
  local back = find(t, flows, { direction = "ingress" })
  t:equal(stats.packets, out.packets + back.packets)
  t:equal(stats.bytes, out.bytes + back.bytes)
end)

test.case("one direction, a match, the largest first, clear and detach", function(t)
  local client, server, near = pair(t)
  local flows = flow.account({ link = near, direction = "egress", match = { to = "10.0.0.2" } })
  t:equal(tostring(flows), "Flows(v0, egress)")
  for port = 1, 5 do
    probe.serve(server, { udp = port, reply = "r" })
    for _ = 1, port do
      probe.udp(client, "10.0.0.2:" .. port, { send = ("x"):rep(1000 - 100 * port) })
    end
  end
  probe.ping(client, "fd00::2", { count = 2, interval = 0.01 })
  local all = flows:list()
  t:equal(#all, 15)
  t:equal(all[1].dport, 1)
  for i = 2, #all do
    t:ok(all[i].bytes <= all[i - 1].bytes)
  end
  local last = flows:list({ by = "last", most = 3 })
  t:equal({ #last, last[1].dport }, { 3, 5 })
  flows:clear()
  t:equal(flows:list(), {})
  t:equal(flows:stats().packets, 15)
  flows:detach()
  probe.udp(client, "10.0.0.2:1")
  t:equal(flows:list(), {})
  flows:detach()
end)

test.case("only so many flows are kept", function(t)
  local client, server, near = pair(t)
  local flows = flow.account({ link = near, direction = "egress", size = 64 })
  probe.serve(server, { udp = 7, reply = "r" })
  for _ = 1, 200 do
    probe.udp(client, "10.0.0.2:7")
  end
  local kept = #flows:list()
  t:ok(kept > 0 and kept <= 64, tostring(kept))
  t:ok(flows:stats().packets >= 200)
end)

test.case("samples", function(t)
  local client, _, near = pair(t)
  local seen = {}
  local flows = flow.account({
    link = near,
    direction = "egress",
    match = { proto = "icmp" },
    sample = 1,
    on_sample = function(sample)
      seen[#seen + 1] = sample
    end,
  })
  probe.ping(client, "10.0.0.2", { count = 5, interval = 0.005 })
  t:eventually(function()
    return #seen == 5
  end)
  local first = seen[1]
  t:ok(math.abs(first.time - os.time()) < 3)
  first.time = nil
  t:equal(first, {
    from = "10.0.0.1",
    to = "10.0.0.2",
    proto = "icmp",
    direction = "egress",
    bytes = 84,
    packets = 1,
    ttl = 64,
  })
  flows:detach()
  -- A share.
  local some = 0
  flows = flow.account({
    link = near,
    match = { proto = "icmp" },
    sample = "1/4",
    on_sample = function()
      some = some + 1
    end,
  })
  probe.ping(client, "10.0.0.2", { count = 1000, interval = 0.0002 })
  t:eventually(function()
    return some == flows:stats().sampled
  end)
  t:equal(flows:stats().missed, 0)
  -- Of 2000 packets; five standard deviations.
  t:ok(math.abs(some - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75), tostring(some))
end)

test.case("what is refused", function(t)
  local _, _, near = pair(t)
  for _, row in ipairs({
    { {}, "link is missing" },
    { { link = near, sample = 1 }, "neither does without the other" },
    { { link = near, on_sample = print }, "neither does without the other" },
    { { link = near, sample = 2, on_sample = print }, "share of the packets" },
    { { link = near, direction = "out" }, "direction must be" },
    { { link = near, siz = 4 }, 'unknown option "siz"' },
  }) do
    t:raises(function()
      flow.account(row[1])
    end, row[2])
  end
  t:raises(function()
    flow.account({ link = near }):list({ by = "size" })
  end, "by must be")
end)
