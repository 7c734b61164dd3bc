--- A client, a router with 1,000 policies, and two servers with one address: a save moves the client from one to the other.
---
--- PREFIX and WHICH (A or B) are filled in by whoever loads it.

local cnf = require "cnf"
local netns, link = cnf.netns, cnf.link

local c, r, a, b = netns.new "PREFIXc", netns.new "PREFIXr", netns.new "PREFIXa", netns.new "PREFIXb"
local c0, r0 = link.veth {
  name = "c0", netns = c, address = "10.80.0.2/24",
  peer = { name = "r0", netns = r, address = "10.80.0.1/24" },
}
local ra = link.veth {
  name = "ra", netns = r, address = "10.81.0.1/24",
  peer = { name = "s0", netns = a, address = "10.81.0.2/24" },
}
local rb = link.veth {
  name = "rb", netns = r, address = "10.82.0.1/24",
  peer = { name = "s0", netns = b, address = "10.82.0.2/24" },
}
c:route { dst = "default", via = "10.80.0.1" }
for ns, via in pairs { [a] = "10.81.0.1", [b] = "10.82.0.1" } do
  ns:link("lo"):add_address "10.99.0.1/32"
  ns:route { dst = "default", via = via }
end
r:sysctl("net.ipv4.ip_forward", 1)
local to = { A = { via = "10.81.0.2", dev = ra }, B = { via = "10.82.0.2", dev = rb } }
local policies = { { from = "10.80.0.0/24", via = to["WHICH"].via, dev = to["WHICH"].dev } }
for i = 1, 999 do
  policies[#policies + 1] = { from = ("10.%d.%d.0/24"):format(100 + i // 250, i % 250), via = "10.81.0.2", dev = ra }
end
cnf.policy.router({ name = "save", attach = { { r0, "ingress" } } }):set(policies)
