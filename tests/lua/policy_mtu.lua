--- The policy router: packets too big for the target are counted and answered, so that the sender learns the path's MTU.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test, probe = cnf.test, cnf.probe

local MTU = 1400

local families = {
  { family = 4, to = "198.51.100.1", prefix = "198.51.100.1/32", url = "198.51.100.1:5000", from = "10.0.0.0/24" },
  { family = 6, to = "2001:db8:99::1", prefix = "2001:db8:99::1/128", url = "[2001:db8:99::1]:5000", from = "fd00::/64" },
}

--- A lab whose first way is narrow; the way back is the last.
local function narrow(t)
  local net = lab.new(t)
  net:add_far_addresses()
  net.link.h1:set({ mtu = MTU })
  net.far.h1:set({ mtu = MTU })
  return net
end

local function learnt(net, to)
  return tonumber(net.client:exec({ "ip", "route", "get", to }).stdout:match("mtu (%d+)"))
end

for _, hook in ipairs({ "ingress", "egress" }) do
  test.case("too big at " .. hook .. ": counted, answered, and the sender learns the MTU", function(t)
    local net = narrow(t)
    local r = net:router({ attach = { { hook == "ingress" and net.link.inside or net.link.h3, hook } } })
    for _, row in ipairs(families) do
      local name = "IPv" .. row.family
      r:set({ net:by(1, { to = row.prefix }) })
      local before = r:stats().total
      -- 1372 and 28 bytes of headers, 1352 and 48: exactly what fits.
      local fits = MTU - (row.family == 4 and 28 or 48)
      t:equal(probe.ping(net.client, row.to, { count = 2, interval = "5ms", size = fits, df = true }).received, 2, name)
      t:equal(learnt(net, row.to), nil)
      t:equal(r:stats().total.too_big.packets, before.too_big.packets)
      local ping = probe.ping(net.client, row.to, { count = 1, size = fits + 1, df = true, timeout = "300ms" })
      t:equal(ping.received, 0, name)
      t:eventually(function()
        return learnt(net, row.to) == MTU
      end)
      local after = r:stats().total
      t:equal(after.too_big.packets - before.too_big.packets, 1, name)
      t:equal(after.answered.packets - before.answered.packets, 1, name)
      t:ok(after.too_big.bytes - before.too_big.bytes > MTU, name)
      -- Now the sender itself refuses, or cuts.
      ping = probe.ping(net.client, row.to, { count = 1, size = fits + 1, df = true, timeout = "50ms" })
      t:equal({ ping.error, r:stats().total.too_big.packets }, { "EMSGSIZE", after.too_big.packets }, name)
      t:equal(probe.ping(net.client, row.to, { count = 2, interval = "5ms", size = 3000 }).received, 2, name)
    end
  end)

  test.case("TCP gets through a smaller MTU at " .. hook, function(t)
    local net = narrow(t)
    local r = net:router({ attach = { { hook == "ingress" and net.link.inside or net.link.h3, hook } } })
    local server = probe.serve(net.sink, { tcp = 5000 })
    local text = ("x"):rep(300000)
    for _, row in ipairs(families) do
      r:set({ net:by(1, { to = row.prefix }) })
      t:equal(#probe.tcp(net.client, row.url, { send = text, timeout = 20 }).reply, #text)
      t:equal(learnt(net, row.to), MTU)
    end
    t:ok(r:stats().total.answered.packets >= 2)
    server:stop()
  end)
end

test.case("IPv4 that may be cut is answered too, and cut by its sender", function(t)
  local net = narrow(t)
  local r = net:router()
  r:set({ net:by(1, { to = "198.51.100.1/32" }) })
  local text = ("x"):rep(1450)
  probe.serve(net.sink, { udp = 5000 })
  t:eventually(function()
    return probe.udp(net.client, "198.51.100.1:5000", { send = text, timeout = "300ms" }).reply == text
  end)
  t:equal(r:stats().total.answered.packets, 1)
  t:equal(learnt(net, "198.51.100.1"), MTU)
end)

test.case("no error answers an error, a later fragment, or a flood", function(t)
  local net = narrow(t)
  local r = net:router()
  for _, row in ipairs(families) do
    local from = row.family == 4 and "10.0.0.2" or "fd00::2"
    r:set({ net:by(1, { to = row.prefix }) })
    local function gained(packets)
      local before = r:stats().total
      net:fates(r, packets)
      local after = r:stats().total
      t:equal(after.too_big.packets - before.too_big.packets, #packets)
      return after.answered.packets - before.answered.packets
    end
    local big = { from = from, to = row.to, size = 1420 }
    -- The flood of the family before may have used up the answers of this moment.
    t:eventually(function()
      return gained({ big }) == 1
    end)
    t:equal(gained({ { from = from, to = row.to, size = 1440, offset = 1480, id = 5 } }), 0, "a later fragment")
    if row.family == 6 then
      t:equal(gained({ { from = from, to = row.to, proto = "icmpv6", icmp_type = 1, size = 1420 } }), 0, "an error")
    end
    local flood = {}
    for i = 1, 400 do
      flood[i] = big
    end
    t:ok(gained(flood) < 400, "at a limited rate")
  end
end)
