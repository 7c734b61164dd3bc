--- Two customers, two providers: each customer's traffic leaves by the provider it pays for.
---
---   customer A 10.10.1.2 --+        +-- 203.0.113.1  ISP 1 --+
---                          +- edge -+                        +- internet 192.0.2.80
---   customer B 10.10.2.2 --+        +-- 198.51.100.1 ISP 2 --+
---
--- The edge has no default route at all: what no policy takes goes nowhere.
---
--- usage: cnfscript scripts/multi_homing.lua [--keep]
--- output:
---   without policies: A 0 of 2, B 0 of 2
---   with policies:    A 5 of 5 by ISP 1, B 5 of 5 by ISP 2
---   10.10.1.0/24 via 203.0.113.1 dev isp1: # packets
---   10.10.2.0/24 via 198.51.100.1 dev isp2: # packets

local cnf = require "cnf"
local netns, link, policy, probe = cnf.netns, cnf.link, cnf.policy, cnf.probe

local SERVER = "192.0.2.80"

local a, b, edge = netns.new("mh-a"), netns.new("mh-b"), netns.new("mh-edge")
local isp1, isp2, internet = netns.new("mh-isp1"), netns.new("mh-isp2"), netns.new("mh-internet")

local function customer(ns, name, subnet)
  local _, inside = link.veth {
    name = "eth0", netns = ns, address = subnet .. ".2/24",
    peer = { name = name, netns = edge, address = subnet .. ".1/24" },
  }
  ns:route { dst = "default", via = subnet .. ".1" }
  return inside
end

local function provider(ns, name, near, far)
  local up = link.veth {
    name = name, netns = edge, address = near .. ".2/24",
    peer = { name = "customers", netns = ns, address = near .. ".1/24" },
  }
  local _, core = link.veth {
    name = "core", netns = ns, address = far .. ".1/24",
    peer = { name = name, netns = internet, address = far .. ".2/24" },
  }
  ns:sysctl("net.ipv4.ip_forward", 1)
  ns:route { dst = "10.10.0.0/16", via = near .. ".2" }
  ns:route { dst = SERVER, via = far .. ".2" }
  return up, core
end

local from_a, from_b = customer(a, "a", "10.10.1"), customer(b, "b", "10.10.2")
local up1, core1 = provider(isp1, "isp1", "203.0.113", "172.20.1")
local up2, core2 = provider(isp2, "isp2", "198.51.100", "172.20.2")
edge:sysctl("net.ipv4.ip_forward", 1)
internet:link("lo"):add_address(SERVER .. "/32")
internet:route { dst = "10.10.1.0/24", via = "172.20.1.1" }
internet:route { dst = "10.10.2.0/24", via = "172.20.2.1" }

local function reach(count, timeout)
  local options = { count = count, interval = "20ms", timeout = timeout }
  return probe.ping(a, SERVER, options), probe.ping(b, SERVER, options)
end

local to_a, to_b = reach(2, "100ms")
print(("without policies: A %d of %d, B %d of %d"):format(to_a.received, to_a.sent, to_b.received, to_b.sent))
assert(to_a.received + to_b.received == 0, "without policies nobody gets through")

local r = policy.router { name = "edge", attach = { { from_a, "ingress" }, { from_b, "ingress" } } }
r:set {
  { from = "10.10.1.0/24", via = "203.0.113.1", dev = up1 },
  { from = "10.10.2.0/24", via = "198.51.100.1", dev = up2 },
}

--- What a provider sent to the internet while `fn` ran: neighbour discovery aside, the echo requests.
local function carried(fn)
  local before = { core1:stats().tx.packets, core2:stats().tx.packets }
  local result = fn()
  return result, core1:stats().tx.packets - before[1], core2:stats().tx.packets - before[2]
end

local options = { count = 5, interval = "20ms" }
local ping_a, a1, a2 = carried(function() return probe.ping(a, SERVER, options) end)
local ping_b, b1, b2 = carried(function() return probe.ping(b, SERVER, options) end)
print(("with policies:    A %d of %d by ISP %d, B %d of %d by ISP %d"):format(
  ping_a.received, ping_a.sent, a1 > a2 and 1 or 2, ping_b.received, ping_b.sent, b1 > b2 and 1 or 2
))
for _, row in ipairs(r:stats()) do
  print(("%s via %s dev %s: %d packets"):format(row.policy.from, row.policy.via, row.policy.dev.name, row.packets))
  assert(row.packets == 5, "each policy routes its customer's five pings")
end
assert(ping_a.received == 5 and ping_b.received == 5, "both customers get through")
assert(a1 >= 5 and b2 >= 5 and a2 < 5 and b1 < 5, "each by its own provider")

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
