--- Filters at XDP: which sources pass, how many frames they may send, and several programs on one link.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local source = require("source")
local filter, link, probe, task, test, xdp =
  cnf.filter, cnf.link, cnf.probe, cnf.task, cnf.test, cnf.xdp

--- A client with several addresses, and a server whose link is filtered.
local function pair(t)
  local client, server = t:netns("client"), t:netns("server")
  local _, eth0 = link.veth({
    name = "eth0",
    netns = client,
    address = { "10.0.0.1/16", "10.0.1.1/16", "10.0.1.2/16", "fd00::1/64", "fd00::2/64" },
    peer = { name = "eth0", netns = server, address = { "10.0.0.99/16", "fd00::99/64" } },
  })
  return client, eth0, server
end

local function pings(client, source, count)
  local to = source:find(":", 1, true) and "fd00::99" or "10.0.0.99"
  return probe.ping(client, to, {
    source = source,
    count = count or 2,
    interval = 0.002,
    timeout = 0.1,
  }).received
end

--- For each source whether it gets through.
local function through(client, ...)
  local result = {}
  for i, source in ipairs({ ... }) do
    result[i] = pings(client, source) == 2
  end
  return result
end

for _, mode in ipairs({ "native", "generic" }) do
  test.case("the longest network decides: " .. mode, function(t)
    local client, eth0 = pair(t)
    local f = filter.xdp({
      link = eth0,
      mode = mode,
      deny = { "10.0.1.0/24", "fd00::1" },
      allow = "10.0.1.2",
    })
    t:equal(f:info(), { link = "eth0", mode = mode, stage = 0 })
    local sources = { "10.0.0.1", "10.0.1.1", "10.0.1.2", "fd00::1", "fd00::2" }
    t:equal(through(client, table.unpack(sources)), { true, false, true, false, true })
    local stats = f:stats()
    t:equal(stats.denied.packets, 4)
    -- 84 bytes of an IPv4 echo, 104 of IPv6.
    t:equal(stats.denied.bytes, 2 * 84 + 2 * 104)
    t:equal(stats.allowed.packets, 2)
    t:equal(stats.limited.packets, 0)
    t:ok(stats.passed.packets >= 4)

    f:deny({ "10.0.0.0/8", "10.0.1.2/32" })
    t:equal(through(client, table.unpack(sources)), { false, false, false, false, true })
    f:allow("10.0.1.0/24")
    t:equal(through(client, table.unpack(sources)), { false, true, false, false, true })
    t:equal(f:remove({ "10.0.0.0/8", "10.0.1.2", "192.0.2.0/24" }), 2)
    t:equal(through(client, table.unpack(sources)), { true, true, true, false, true })
    f:detach()
    t:equal(through(client, "fd00::1"), { true })
    t:equal(xdp.query(eth0).programs, {})
    f:detach()
  end)
end

test.case("denied by default, but ARP and neighbour discovery", function(t)
  local client, eth0, server = pair(t)
  local f = filter.xdp({ link = eth0, default = "deny", allow = { "10.0.0.1", "fd00::1" } })
  server:exec("ip neigh flush all")
  client:exec("ip neigh flush all")
  t:equal(through(client, "10.0.0.1", "10.0.1.1", "fd00::1", "fd00::2"), { true, false, true, false })
  t:ok(f:stats().other.packets >= 2)
end)

test.case("by the prefix lengths of IPv4 and IPv6, all of them", function(t)
  local client, eth0 = pair(t)
  local deny, allow = {}, {}
  for length = 1, 31 do
    local mask = ~0 << (32 - length) & 0xffffffff
    local bits = 0x0a000101 & mask
    local list = length % 2 == 1 and deny or allow
    list[#list + 1] = ("%d.%d.%d.%d/%d"):format(bits >> 24, bits >> 16 & 255, bits >> 8 & 255, bits & 255, length)
  end
  for length = 1, 16 do
    local bits = 0xfd00 & (~0 << (16 - length))
    local list = length % 2 == 0 and deny or allow
    list[#list + 1] = ("%x::/%d"):format(bits & 0xffff, length)
  end
  for length = 17, 127 do
    local list = length % 2 == 0 and deny or allow
    list[#list + 1] = ("fd00::/%d"):format(length)
  end
  local f = filter.xdp({ link = eth0, deny = deny, allow = allow })
  -- 10.0.1.1 is in a /31 that denies; what shares 23 bits with it and no more, in a /23 that does.
  t:equal(through(client, "10.0.1.1", "10.0.0.1", "fd00::1", "fd00::2"), { false, false, true, false })
  f:deny({ "0.0.0.0/0", "::/0" })
  f:allow("10.0.1.1")
  t:equal(through(client, "10.0.1.1"), { true })
end)

test.case("a rate for all together", function(t)
  local client, eth0 = pair(t)
  local f = filter.xdp({ link = eth0, rate = { pps = 10, burst = 20 }, allow = "10.0.1.2" })
  probe.ping(client, "10.0.0.99", { source = "10.0.0.1", count = 50, interval = 0, timeout = 0.1 })
  probe.ping(client, "10.0.0.99", { source = "10.0.1.1", count = 50, interval = 0, timeout = 0.1 })
  local stats = f:stats()
  t:ok(stats.passed.packets >= 18 and stats.passed.packets <= 28, stats.passed.packets)
  t:ok(stats.limited.packets >= 72)
  -- An allowed source knows no rate.
  t:equal(pings(client, "10.0.1.2", 50), 50)
end)

test.case("a rate for each source", function(t)
  local client, eth0 = pair(t)
  local f = filter.xdp({ link = eth0, rate = { pps = 10, burst = 20, per = "source" } })
  local function flood(source)
    return pings(client, source, 60)
  end
  for _, source in ipairs({ "10.0.0.1", "10.0.1.1", "fd00::1", "fd00::2" }) do
    local received = flood(source)
    t:ok(received >= 18 and received <= 28, ("%d of %s"):format(received, source))
  end
  t:ok(flood("10.0.0.1") < 18)
  -- It fills again.
  task.sleep(0.6)
  local again = flood("10.0.0.1")
  t:ok(again >= 5 and again <= 20, tostring(again))
  t:ok(f:stats().limited.packets > 150)
end)

test.case("a million networks", function(t)
  local client, eth0 = pair(t)
  local f = filter.xdp({ link = eth0, size = 1100000, deny = "10.0.0.1" })
  local list = {}
  -- Fewer where every instruction is emulated.
  local count = os.getenv("CNF_SLOW") and 100000 or 1000000
  for i = 0, count - 1 do
    list[i + 1] = ("%d.%d.%d.%d"):format(20 + (i >> 16), i >> 8 & 255, i & 255, 7)
  end
  f:deny(list)
  f:deny({ "10.0.1.0/24" })
  t:equal(through(client, "10.0.0.1", "10.0.1.1", "fd00::1"), { false, false, true })
  t:equal(f:remove(list), count)
end)

test.case("full is said", function(t)
  local client, eth0 = pair(t)
  local f = filter.xdp({ link = eth0, size = 4, deny = "10.0.0.1" })
  local full = t:raises(function()
    f:deny({ "10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16" })
  end, "E2BIG")
  t:equal(full.op, "filter:deny")
  t:ok(full.hint:find("size", 1, true))
  t:equal(through(client, "10.0.0.1", "10.0.1.1"), { false, true })
end)

test.case("several on one link, each by itself", function(t)
  local client, eth0 = pair(t)
  local first = filter.xdp({ link = eth0, deny = "10.0.0.1" })
  local second = filter.xdp({ link = eth0, deny = "10.0.1.1" })
  t:equal(#xdp.query(eth0).programs, 1)
  t:equal(through(client, "10.0.0.1", "10.0.1.1", "10.0.1.2"), { false, false, true })
  t:equal(first:stats().denied.packets, 2)
  t:equal(second:stats().denied.packets, 2)
  first:detach()
  t:equal(through(client, "10.0.0.1", "10.0.1.1"), { true, false })
  local others = {}
  for i = 1, 3 do
    others[i] = filter.xdp({ link = eth0 })
  end
  t:raises(function()
    filter.xdp({ link = eth0 })
  end, "EBUSY")
  t:raises(function()
    filter.xdp({ link = eth0, mode = "generic" })
  end, "native mode")
  second:detach()
  for _, other in ipairs(others) do
    other:detach()
  end
  t:equal(xdp.query(eth0).programs, {})
end)

test.case("a hook that somebody else holds", function(t)
  local _, eth0 = pair(t)
  local own = source.compile('SEC("xdp") int own(struct xdp_md *ctx) { return XDP_PASS; }')
  local there = xdp.attach(eth0, own.programs.own)
  local busy = t:raises(function()
    filter.xdp({ link = eth0 })
  end, "EBUSY")
  t:equal(busy.op, "filter.xdp")
  there:detach()
  filter.xdp({ link = eth0 })
end)

test.case("lists change while frames come, none is lost", function(t)
  local client, eth0 = pair(t)
  local f = filter.xdp({ link = eth0, allow = "10.0.0.1", default = "deny" })
  probe.ping(client, "10.0.0.99", { source = "10.0.0.1", count = 1 })
  local flood = task.spawn(function()
    return probe.ping(client, "10.0.0.99", {
      source = "10.0.0.1",
      count = 300,
      interval = 0.002,
      timeout = 2,
    })
  end)
  for i = 1, 60 do
    f:deny(("10.%d.0.0/%d"):format(i, 16 + i % 17))
    task.sleep(0.005)
    f:remove(("10.%d.0.0/%d"):format(i, 16 + i % 17))
  end
  t:equal(flood:join().received, 300)
end)

test.case("what is refused", function(t)
  local _, eth0 = pair(t)
  for _, row in ipairs({
    { { link = eth0, dney = "10.0.0.1" }, 'unknown option "dney"' },
    { { deny = "10.0.0.1" }, "link is missing" },
    { { link = eth0, deny = "10.0.0.300" }, "10.0.0.300" },
    { { link = eth0, deny = { "10.0.0.1", 7 } }, "deny[2] must be a network, got 7" },
    { { link = eth0, deny = "10.0.0.1/8" }, "is not a network" },
    { { link = eth0, rate = {} }, "pps is missing" },
    { { link = eth0, rate = { pps = 0 } }, "pps must be 1 or more" },
    { { link = eth0, rate = { pps = 1, per = "flow" } }, "per must be" },
    { { link = eth0, default = "drop" }, "default must be" },
    { { link = eth0, mode = "offload" }, "mode must be" },
  }) do
    t:raises(function()
      filter.xdp(row[1])
    end, row[2])
  end
  t:equal(xdp.query(eth0).programs, {})
  eth0:delete()
  t:raises(function()
    filter.xdp({ link = eth0 })
  end, "ENODEV")
end)
