--- Rate limits: how much passes, of what, and for whom; on the tc hooks and at XDP.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local hooks, source = require("hooks"), require("source")
local bpf, chaos, filter, link, police, probe, task, test =
  cnf.bpf, cnf.chaos, cnf.filter, cnf.link, cnf.police, cnf.probe, cnf.task, cnf.test

local function pair(t)
  local client, server = t:netns("client"), t:netns("server")
  local near, far = link.veth({
    name = "eth0",
    netns = client,
    address = { "10.0.0.1/24", "10.0.0.2/24", "fd00::1/64" },
    peer = { name = "eth0", netns = server, address = { "10.0.0.99/24", "10.0.0.98/24", "fd00::99/64" } },
  })
  t:equal(probe.ping(client, "10.0.0.99", { count = 1 }).received, 1)
  return client, server, near, far
end

-- Links speak on their own, of neighbours and groups.
local ICMP = { proto = "icmp" }

--- So many pings as fast as they go; how many came back.
local function flood(ns, count, options)
  options = options or {}
  return probe.ping(ns, options.to or "10.0.0.99", {
    source = options.source,
    size = options.size,
    count = count,
    interval = 0,
    timeout = 0.1,
  }).received
end

local function near_to(t, got, least, most)
  t:ok(got >= least and got <= most, ("%d, not %d to %d"):format(got, least, most))
end

for _, place in ipairs({
  { "ingress", "tc" },
  { "egress", "tc" },
  { "ingress", "xdp" },
}) do
  local direction, hook = table.unpack(place)
  local name = direction .. " " .. hook

  test.case("packets a second, " .. name, function(t)
    local client, _, near, far = pair(t)
    local on = direction == "egress" and near or far
    local l = police.limit({
      link = on,
      direction = direction,
      hook = hook,
      pps = 20,
      burst = 30,
      match = ICMP,
    })
    near_to(t, flood(client, 100), 30, 40)
    local stats = l:stats()
    t:equal(stats.conformed.packets + stats.exceeded.packets, 100)
    near_to(t, stats.exceeded.packets, 60, 70)
    -- 20 come back in a second.
    task.sleep(0.5)
    near_to(t, flood(client, 40), 8, 20)
    l:set({ pps = 100000, burst = 1000 })
    t:equal(flood(client, 100), 100)
    l:detach()
    t:equal(flood(client, 10), 10)
    l:detach()
  end)

  test.case("bits a second, " .. name, function(t)
    local client, _, near, far = pair(t)
    local on = direction == "egress" and near or far
    local l = police.limit({
      link = on,
      direction = direction,
      hook = hook,
      rate = "80kbit",
      burst = 21000,
      match = ICMP,
    })
    -- 1000 bytes, 8 of ICMP, 20 of IPv4, 14 of Ethernet: 20 of them fit.
    near_to(t, flood(client, 60, { size = 1000 }), 20, 25)
    local stats = l:stats()
    t:equal(stats.conformed.bytes, stats.conformed.packets * 1042)
    t:equal(stats.exceeded.bytes, stats.exceeded.packets * 1042)
    -- 10 kB a second.
    task.sleep(0.5)
    near_to(t, flood(client, 30, { size = 1000 }), 4, 9)
  end)

  test.case("each source, each destination, each flow, " .. name, function(t)
    local client, server, near, far = pair(t)
    local on = direction == "egress" and near or far
    local base = { link = on, direction = direction, hook = hook, pps = 10, burst = 20 }
    local function limited(per)
      base.per = per
      return police.limit(base)
    end
    local l = limited("source")
    for _, source in ipairs({ "10.0.0.1", "10.0.0.2" }) do
      near_to(t, flood(client, 50, { source = source }), 20, 25)
    end
    near_to(t, flood(client, 50, { to = "fd00::99" }), 18, 25)
    t:ok(flood(client, 50, { source = "10.0.0.1", to = "10.0.0.98" }) < 15)
    l:detach()
    l = limited("destination")
    near_to(t, flood(client, 50, { source = "10.0.0.1" }), 20, 25)
    t:ok(flood(client, 50, { source = "10.0.0.2" }) < 15)
    near_to(t, flood(client, 50, { to = "10.0.0.98" }), 20, 25)
    l:detach()
    base.pps, base.burst = 1, 2
    l = limited("flow")
    probe.serve(server, { udp = 7 })
    probe.serve(server, { udp = 8 })
    local function answered(port)
      return (pcall(probe.udp, client, "10.0.0.99:" .. port, { timeout = 0.1 }))
    end
    -- Each has a port of its own.
    for _ = 1, 5 do
      t:ok(answered(7))
    end
    t:ok(l:stats().exceeded.packets == 0)
  end)

  test.case("only what matches, " .. name, function(t)
    local client, server, near, far = pair(t)
    local on = direction == "egress" and near or far
    local l = police.limit({
      link = on,
      direction = direction,
      hook = hook,
      pps = 1,
      burst = 1,
      match = { proto = "udp", dport = 7 },
    })
    probe.serve(server, { udp = 7, reply = "seven" })
    probe.serve(server, { udp = 8, reply = "eight" })
    t:equal(flood(client, 20), 20)
    local answers = 0
    for _ = 1, 4 do
      answers = answers + (pcall(probe.udp, client, "10.0.0.99:7", { timeout = 0.05 }) and 1 or 0)
      t:equal(probe.udp(client, "10.0.0.99:8").reply, "eight")
    end
    t:ok(answers == 1 or answers == 2)
    t:equal(l:stats().exceeded.packets, 4 - answers)
  end)
end

test.case("a stream is held to its rate", function(t)
  local client, server, near = pair(t)
  probe.serve(server, { tcp = 80 })
  local l = police.limit({ link = near, direction = "egress", rate = "8mbit", match = { proto = "tcp" } })
  local text = ("x"):rep(1000000)
  local echo = probe.tcp(client, "10.0.0.99:80", { send = text, timeout = 30 })
  t:equal(#echo.reply, #text)
  local took = echo.total
  -- A megabyte at a megabyte a second, but for the first tenth of one.
  t:ok(took > 0.7, ("%.2f s"):format(took))
  local stats = l:stats()
  t:ok(stats.conformed.bytes >= #text)
  t:ok(stats.conformed.bytes / took < 1.15 * (1e6 + 100e3 / took), "not faster than the rate")
end)

test.case("order: faults first, the script's own behind", function(t)
  local client, _, near = pair(t)
  local own = source.compile('SEC("tc") int own(struct __sk_buff *skb) { return -1; }')
  bpf.attach(near, "egress", own.programs.own)
  local l = police.limit({ link = near, direction = "egress", pps = 1000, match = ICMP })
  local fault = chaos.inject(near, { blackhole = true, match = { proto = "icmp" } })
  local hook = bpf.has("tcx").available and cnf.tcx or cnf.tc
  t:equal(hooks.names(hook.query(near, "egress")), { "chaos_egress", "police_egress", "own" })
  t:equal(flood(client, 10), 0)
  t:equal(l:stats().conformed.packets, 0)
  fault:heal()
  t:equal(flood(client, 10), 10)
  t:equal(l:stats().conformed.packets, 10)
end)

test.case("a filter and limits share an XDP hook", function(t)
  local client, _, _, far = pair(t)
  local l = police.limit({ link = far, hook = "xdp", pps = 1000, match = ICMP })
  filter.xdp({ link = far, deny = "10.0.0.2" })
  police.limit({ link = far, hook = "xdp", pps = 2000 })
  t:equal(#cnf.xdp.query(far).programs, 1)
  t:equal(flood(client, 10), 10)
  t:equal(flood(client, 10, { source = "10.0.0.2" }), 0)
  -- The filter stands before, though it came later.
  t:equal(l:stats().conformed.packets, 10)
end)

test.case("what is refused", function(t)
  local _, _, near = pair(t)
  for _, row in ipairs({
    { { link = near }, "needs a rate" },
    { { link = near, rate = "1mbit", pps = 1 }, "both say how fast" },
    { { link = near, rate = 0 }, "8 bits a second or more" },
    { { link = near, pps = 0 }, "pps must be 1 or more" },
    { { link = near, pps = 1, burst = 0 }, "burst must be 1 or more" },
    { { link = near, rate = "fast" }, "not a rate" },
    { { link = near, pps = 1, per = "port" }, "per must be" },
    { { link = near, pps = 1, hook = "xdp", direction = "egress" }, "no egress" },
    { { link = near, pps = 1, hook = "xdp", match = { mark = 1 } }, "no mark" },
    { { link = near, pps = 1, mach = {} }, 'unknown option "mach"' },
  }) do
    t:raises(function()
      police.limit(row[1])
    end, row[2])
  end
  local l = police.limit({ link = near, pps = 1 })
  t:raises(function()
    l:set({ rate = "1mbit" })
  end, "limits by pps")
end)
