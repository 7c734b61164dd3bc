--- A service-mesh sidecar with two interfaces: service traffic leaves by the service network, management traffic by the
--- management network, by source address alone.
---
---                  +-- net0 192.168.1.10 --- 192.168.1.1 mgmt ----+
---   pod ----------+                                               +-- far 198.51.100.9
---                  +-- net1 10.96.0.10 ----- 10.96.0.1 service ---+
---
--- The pod's default route is the management network, whose gateway refuses foreign sources (rp_filter). Without policies the
--- service address is thus cut off.
---
--- usage: cnfscript scripts/sidecar.lua [--keep]
--- output:
---   without policies: from 10.96.0.10 0 of 2, from 192.168.1.10 2 of 2
---   with policies:    from 10.96.0.10 3 of 3 by service, from 192.168.1.10 3 of 3 by mgmt

local cnf = require "cnf"
local netns, link, policy, probe = cnf.netns, cnf.link, cnf.policy, cnf.probe

local FAR, SERVICE, MANAGEMENT = "198.51.100.9", "10.96.0.10", "192.168.1.10"

local pod, mgmt, service, far =
  netns.new("sc-pod"), netns.new("sc-mgmt"), netns.new("sc-service"), netns.new("sc-far")

local function network(gateway, name, address, gateway_address, far_subnet)
  local inside = link.veth {
    name = name, netns = pod, address = address .. "/24",
    peer = { name = "pods", netns = gateway, address = gateway_address .. "/24" },
  }
  local _, core = link.veth {
    name = "core", netns = gateway, address = far_subnet .. ".1/24",
    peer = { name = name, netns = far, address = far_subnet .. ".2/24" },
  }
  gateway:sysctl("net.ipv4.ip_forward", 1)
  gateway:route { dst = FAR, via = far_subnet .. ".2" }
  far:route { dst = address, via = far_subnet .. ".1" }
  return inside, core
end

local net0, by_mgmt = network(mgmt, "net0", MANAGEMENT, "192.168.1.1", "172.20.1")
local net1, by_service = network(service, "net1", SERVICE, "10.96.0.1", "172.20.2")
mgmt:sysctl("net.ipv4.conf.all.rp_filter", 1)
far:link("lo"):add_address(FAR .. "/32")
pod:route { dst = "default", via = "192.168.1.1" }

local function ping(source, count, timeout)
  local before = { by_mgmt:stats().tx.packets, by_service:stats().tx.packets }
  local result = probe.ping(pod, FAR, { source = source, count = count, interval = "20ms", timeout = timeout })
  local mgmt_carried = by_mgmt:stats().tx.packets - before[1]
  local service_carried = by_service:stats().tx.packets - before[2]
  return result, mgmt_carried > service_carried and "mgmt" or "service"
end

local s, m = ping(SERVICE, 2, "150ms"), ping(MANAGEMENT, 2, "1s")
print(("without policies: from %s %d of %d, from %s %d of %d"):format(
  SERVICE, s.received, s.sent, MANAGEMENT, m.received, m.sent
))
assert(s.received == 0 and m.received == 2, "only the management address has a way")

-- The pod's default route points at net0, so that is where misrouted packets leave.
local r = policy.router { name = "sidecar", attach = { { net0, "egress" }, { net1, "egress" } } }
r:set {
  { from = SERVICE, via = "10.96.0.1", dev = net1 },
  { from = MANAGEMENT, via = "192.168.1.1", dev = net0 },
}

local by_s, by_m
s, by_s = ping(SERVICE, 3)
m, by_m = ping(MANAGEMENT, 3)
print(("with policies:    from %s %d of %d by %s, from %s %d of %d by %s"):format(
  SERVICE, s.received, s.sent, by_s, MANAGEMENT, m.received, m.sent, by_m
))
assert(s.received == 3 and by_s == "service", "service traffic takes the service network")
assert(m.received == 3 and by_m == "mgmt", "management traffic takes the management network")

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
