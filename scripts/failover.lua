--- Failover: the first provider's link goes down under a running ping, and the kernel's own link event moves its customers to the
--- second provider.
---
---                        +-- 203.0.113.1  ISP 1 --+
---   customer --- edge ---+                        +-- internet 192.0.2.80
---                        +-- 198.51.100.1 ISP 2 --+
---
--- The way back is by ISP 2 all the time, so that what is measured is this side's decision alone.
---
--- usage: cnfscript scripts/failover.lua [--keep]
--- output:
---   link isp1 went down: customers moved to ISP 2 # ms later
---   ping every 2 ms: # of 250 lost, an outage of # ms (a quiet machine: under 50)

local cnf = require "cnf"
local event, link, netns, policy, probe, task =
  cnf.event, cnf.link, cnf.netns, cnf.policy, cnf.probe, cnf.task

local SERVER, CUSTOMERS = "192.0.2.80", "10.10.1.0/24"

local customer, edge = netns.new("fo-customer"), netns.new("fo-edge")
local isp1, isp2, internet = netns.new("fo-isp1"), netns.new("fo-isp2"), netns.new("fo-internet")
local _, inside = link.veth {
  name = "eth0", netns = customer, address = "10.10.1.2/24",
  peer = { name = "inside", netns = edge, address = "10.10.1.1/24" },
}
customer:route { dst = "default", via = "10.10.1.1" }

local function provider(ns, name, near, far)
  local up, down = link.veth {
    name = name, netns = edge, address = near .. ".2/24",
    peer = { name = "customers", netns = ns, address = near .. ".1/24" },
  }
  link.veth {
    name = "core", netns = ns, address = far .. ".1/24",
    peer = { name = name, netns = internet, address = far .. ".2/24" },
  }
  ns:sysctl("net.ipv4.ip_forward", 1)
  ns:route { dst = SERVER, via = far .. ".2" }
  return up, down
end

local up1, down1 = provider(isp1, "isp1", "203.0.113", "172.20.1")
local up2 = provider(isp2, "isp2", "198.51.100", "172.20.2")
edge:sysctl("net.ipv4.ip_forward", 1)
isp2:route { dst = CUSTOMERS, via = "198.51.100.2" }
internet:link("lo"):add_address(SERVER .. "/32")
internet:route { dst = CUSTOMERS, via = "172.20.2.1" }

local r = policy.router { name = "edge", attach = { { inside, "ingress" } } }
r:set { { from = CUSTOMERS, via = "203.0.113.1", dev = up1 } }
-- The neighbours are known before the fault, as on a line that has been in use.
probe.ping(edge, "203.0.113.1", { count = 1 })
probe.ping(edge, "198.51.100.1", { count = 1 })
assert(probe.ping(customer, SERVER, { count = 2, interval = "10ms" }).received == 2, "ISP 1 works")

local cut, moved
event.on("link", { link = up1 }, function(e)
  if not e.carrier and cut and not moved then
    r:set { { from = CUSTOMERS, via = "198.51.100.1", dev = up2 } }
    moved = task.now()
  end
end)

local COUNT, INTERVAL = 250, 0.002
local fault = task.after(0.1, function()
  cut = task.now()
  down1:down()
end)
local ping = probe.ping(customer, SERVER, { count = COUNT, interval = INTERVAL, timeout = "500ms" })
fault:join()

local lost = ping.sent - ping.received
local outage = lost * INTERVAL * 1000
print(("link isp1 went down: customers moved to ISP 2 %.1f ms later"):format((moved - cut) * 1000))
print(("ping every 2 ms: %d of %d lost, an outage of %.0f ms (a quiet machine: under 50)"):format(
  lost, ping.sent, outage
))
assert(moved and ping.received >= COUNT / 2, "the customers were moved, and the ping went on")
assert(r:stats()[1].packets > 0, "ISP 2 carries the customers now")

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
