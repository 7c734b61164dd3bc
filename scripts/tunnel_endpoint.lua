--- A tunnel endpoint: traffic from 172.16.0.0/16 goes into a tunnel device, everything else takes the plain way.
---
---   branch 172.16.5.2 --+             +==== tun0 (VXLAN) ====+
---                       +- endpoint --+                      +- remote 192.0.2.10
---   guest 10.20.0.2 ----+             +----- underlay -------+
---
--- usage: cnfscript scripts/tunnel_endpoint.lua [--keep]
--- output:
---   without the policy: branch 3 of 3 in the clear, guest 3 of 3 in the clear
---   with the policy:    branch 3 of 3 in the tunnel, guest 3 of 3 in the clear

local cnf = require "cnf"
local netns, link, policy, probe = cnf.netns, cnf.link, cnf.policy, cnf.probe

local REMOTE = "192.0.2.10"

local branch, guest, endpoint, remote =
  netns.new("te-branch"), netns.new("te-guest"), netns.new("te-endpoint"), netns.new("te-remote")

local function site(ns, name, subnet)
  local _, inside = link.veth {
    name = "eth0", netns = ns, address = subnet .. ".2/24",
    peer = { name = name, netns = endpoint, address = subnet .. ".1/24" },
  }
  ns:route { dst = "default", via = subnet .. ".1" }
  return inside
end

local from_branch, from_guest = site(branch, "branch", "172.16.5"), site(guest, "guest", "10.20.0")
local underlay, far = link.veth {
  name = "underlay", netns = endpoint, address = "203.0.113.1/24",
  peer = { name = "underlay", netns = remote, address = "203.0.113.2/24" },
}
-- Its packets are counted: without a link-local address it says nothing of its own.
local tun = link.vxlan {
  name = "tun0", netns = endpoint, address = "172.31.0.1/30", addrgenmode = "none",
  id = 42, dev = underlay, ["local"] = "203.0.113.1", remote = "203.0.113.2", dstport = 4789,
}
link.vxlan {
  name = "tun0", netns = remote, address = "172.31.0.2/30", addrgenmode = "none",
  id = 42, dev = far, ["local"] = "203.0.113.2", remote = "203.0.113.1", dstport = 4789,
}
remote:link("lo"):add_address(REMOTE .. "/32")
endpoint:sysctl("net.ipv4.ip_forward", 1)
endpoint:route { dst = REMOTE, via = "203.0.113.2" }
remote:route { dst = "172.16.0.0/16", via = "203.0.113.1" }
remote:route { dst = "10.20.0.0/24", via = "203.0.113.1" }

local function way(ns)
  local before = tun:stats().tx.packets
  local ping = probe.ping(ns, REMOTE, { count = 3, interval = "20ms" })
  local tunnelled = tun:stats().tx.packets - before
  return ("%d of %d in the %s"):format(ping.received, ping.sent, tunnelled >= 3 and "tunnel" or "clear")
end

local b, g = way(branch), way(guest)
print(("without the policy: branch %s, guest %s"):format(b, g))
assert(b == "3 of 3 in the clear" and g == b, "the plain way works for both")

local r = policy.router { name = "endpoint", attach = { { from_branch, "ingress" }, { from_guest, "ingress" } } }
r:set { { from = "172.16.0.0/16", via = "172.31.0.2", dev = tun } }

b, g = way(branch), way(guest)
print(("with the policy:    branch %s, guest %s"):format(b, g))
assert(b == "3 of 3 in the tunnel" and g == "3 of 3 in the clear", "only the branch is tunnelled")
assert(r:stats()[1].packets == 3, "the policy counts the branch's packets alone")

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
