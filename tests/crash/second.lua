--- What first.lua becomes: of all kinds something is kept, changed, dropped and new.
local cnf = require "cnf"
local common = require "common"
local netns, link, tc, tcx, xdp = cnf.netns, cnf.link, cnf.tc, cnf.tcx, cnf.xdp
local id, maybe = cnf.args[1], common.maybe

local steps = { T = "k++;", U = "skb->mark = 0;", X = "ctx->rx_queue_index == 999 ? XDP_DROP :" }
local _, t, u, x = common.programs(id, steps)

local host = netns.host()
local a, c = netns.new(id .. "a"), netns.new(id .. "c")
a:sysctl("net.ipv4.ip_forward", 0)
link.veth {
  name = "v0", netns = a, address = { "10.8.0.3/24" }, mtu = 1400,
  peer = { name = "v1", netns = c },
}
local own = link.veth {
  name = "own0", address = { "10.2.0.1/24", "10.2.0.7/24", "10.2.3.1/24" }, mtu = 1400,
  peer = { name = "own1", netns = a, address = "10.2.0.2/24" },
}
own:add_address "fd02::1/64"
local bridge = link.bridge { name = "br0", address = "10.6.0.1/24", mtu = 1400 }
link.bridge { name = "br1" }

local f0, f1, f2, f3 = host:link "f0", host:link "f1", host:link "f2", host:link "named"
f0:add_address "10.9.0.1/24"
f0:add_address "10.10.0.1/24"
f0:delete_address "10.1.0.1/24"
f1:delete_address "10.3.0.1/24"
host:route { dst = "10.20.0.0/16", via = "10.2.0.8" }
host:route { dst = "10.11.0.0/24", dev = own }
host:route { dst = "10.22.0.0/16", via = "10.9.0.9", metric = 50 }
host:rule { from = "10.20.0.0/16", table = 79, priority = 900 }
host:neigh { dst = "10.2.0.9", lladdr = "02:00:00:00:00:18", dev = own }

host:sysctl("net.ipv4.ip_forward", 0)
host:sysctl("net.ipv4.ip_local_port_range", "20000 40000")
host:sysctl("net.ipv4.conf.f0.rp_filter", "0x1")
host:sysctl("net.ipv6.conf.all.forwarding", 1)

f1:set { alias = "still ours", txqueuelen = 78 }
f0:set { mtu = 1500 }
f2:set { master = bridge, group = 8 }
f3:set { up = false }
f3:rename "named"

f0:qdisc { kind = "tbf", rate = "20mbit", burst = 20000, latency = "50ms" }
tc.attach(f2, "ingress", t)
tc.attach(f0, "ingress", t, { slot = "two" })
tc.attach(own, "egress", u)
maybe(tcx.attach, own, "ingress", t)
maybe(tcx.attach, f0, "egress", u)
xdp.attach(f0, x)

host:spawn { "sleep", "3603" }
