--- A script that leaves one of everything, most of it where others have theirs.
--- Its argument is the prefix of all names.
local cnf = require "cnf"
local common = require "common"
local netns, link, tc, tcx, xdp, policy = cnf.netns, cnf.link, cnf.tc, cnf.tcx, cnf.xdp, cnf.policy
local id, maybe = cnf.args[1], common.maybe

--- What somebody else has is refused, and stays.
local function refused(what, ...)
  assert(not pcall(what, ...), "it was not refused")
end

local map, t, u, x = common.programs(id, { T = "", U = "", X = "" })
map:set(0, 7)

local host = netns.host()
local a, b = netns.new(id .. "a"), netns.new(id .. "b")
refused(netns.new, id .. "far")
a:sysctl("net.ipv4.ip_forward", 1)
link.veth {
  name = "v0", netns = a, address = { "10.8.0.1/24", "fd08::1/64" },
  peer = { name = "v1", netns = b, address = "10.8.0.2/24" },
}
local own = link.veth {
  name = "own0", address = { "10.2.0.1/24", "fd02::1/64" },
  peer = { name = "own1", netns = a, address = "10.2.0.2/24" },
}
own:add_address "10.2.3.1/24"
refused(link.veth, { name = "f0", peer = { name = "own9" } })
refused(link.veth, { name = "own9", peer = { name = "f0" } })
local bridge = link.bridge { name = "br0", address = "10.6.0.1/24" }
maybe(link.dummy, { name = "dum0" })
maybe(link.vlan, { name = "vlan0", link = "f0", id = 7 })
maybe(link.macvlan, { name = "mac0", link = "f0" })
maybe(link.vxlan, { name = "vx0", id = 7, dstport = 4789, ["local"] = "10.2.0.1" })
maybe(link.ifb, { name = "ifb0" })
maybe(link.tun, { name = "tun0" })
maybe(function() return cnf.netkit.pair { name = "nk0", peer = { name = "nk1", netns = b } } end)
local traveller = link.veth { name = "mv0", peer = { name = "mv1", netns = a } }
traveller:move(b)
b:link("v1"):add_address "10.8.1.2/24"

local f0, f1, f2, f3 = host:link "f0", host:link "f1", host:link "f2", host:link "f3"
f0:add_address "10.9.0.1/24"
f0:add_address "fd09::1/64"
f0:add_address "10.11.0.1/24"
refused(f0.add_address, f0, "10.1.0.1/24")
f0:delete_address "10.1.0.1/24"
f1:delete_address "fd03::1/64"
host:route { dst = "10.20.0.0/16", via = "10.2.0.9" }
host:route { dst = "10.21.0.0/16", via = "10.9.0.9", metric = 50 }
host:route { dst = "fd20::/48", via = "fd02::9", dev = own }
refused(host.route, host, { dst = "10.55.0.0/16", type = "blackhole" })
refused(host.route, host, { dst = "10.54.0.0/16", dev = f1, scope = "link", table = 77 })
a:route { dst = "default", via = "10.2.0.1" }
host:rule { from = "10.20.0.0/16", table = 78, priority = 900 }
host:rule { from = "fd20::/48", table = 78, priority = 900 }
refused(host.rule, host, { from = "10.7.0.0/16", table = 77, priority = 1000 })
host:neigh { dst = "10.2.0.9", lladdr = "02:00:00:00:00:19", dev = own }
host:neigh { dst = "10.9.0.9", lladdr = "02:00:00:00:00:29", dev = f0 }
refused(host.neigh, host, { dst = "10.3.0.9", lladdr = "02:00:00:00:00:39", dev = f1 })

host:sysctl("net.ipv4.ip_forward", 1)
host:sysctl("net.ipv6.conf.all.forwarding", 1)
host:sysctl("net.ipv4.ip_local_port_range", "20000 30000")
host:sysctl("net.ipv4.tcp_rmem", "4096 100000 200000")
host:sysctl("net.ipv4.conf.f0.rp_filter", "0x2")
host:sysctl("net.ipv4.conf.default.arp_ignore", 1)
host:sysctl("net.ipv6.conf.f2.disable_ipv6", 1)

f1:set { alias = "ours", txqueuelen = 77, mac = "02:00:00:00:f1:77", promisc = true }
f1:set { up = false }
f0:set { mtu = 1100 }
f2:set { master = bridge, group = 7 }
f3:set { up = true, addrgenmode = "none" }
f3:rename "named"
refused(f0.rename, f0, "f1")

f0:qdisc { kind = "tbf", rate = "10mbit", burst = 20000, latency = "50ms" }
f2:qdisc { kind = "clsact" }
own:qdisc { kind = "clsact" }
tc.attach(f2, "ingress", t)
tc.attach(f2, "egress", t, { slot = "two" })
tc.attach(f0, "ingress", t)
tc.attach(f0, "ingress", t, { slot = "two" })
tc.attach(own, "egress", t)
maybe(tcx.attach, own, "ingress", t)
maybe(tcx.attach, f0, "egress", u)
xdp.attach(f0, x)
policy.router { name = id, attach = { { own, "egress" } }, default = { action = "pass" } }

host:spawn { "sleep", "3600" }
a:spawn("exec 2>/dev/null; sleep 3601 & sleep 3602 & wait")
io.stderr:write("set up\n")
