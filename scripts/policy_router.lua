--- Policy routing heals an asymmetric path.
---
---   client 10.0.2.2 --- 10.0.2.1 cnf 10.0.1.1 --- 10.0.1.2 server 192.168.0.2 --- 192.168.0.1 other
---                                                  lo: 192.168.100.5
---
--- The server has a virtual IP on loopback, and its default gateway is another router. The client's packets to the
--- virtual IP arrive through the CNF; the replies leave towards the other router, which knows no way back, and the
--- connection dies. One policy on the egress of the server's uplink sends what comes *from* the virtual IP back
--- through the CNF.
---
--- usage: cnfscript scripts/policy_router.lua [--keep]     --keep leaves it running until Ctrl-C
--- output:
---   before: ping 192.168.100.5 got 0 of 2 replies, tcp says ETIMEDOUT
---           the other router got # packets that it has no way for
---   policy: from 192.168.100.5 via 10.0.1.1 dev eth0
---   after:  ping 192.168.100.5 got 5 of 5 replies, tcp says "hello from 192.168.100.5"
---           the policy routed # packets, # bytes; the other router got 0 more

local cnf = require "cnf"
local netns, link, policy, probe = cnf.netns, cnf.link, cnf.policy, cnf.probe

local VIP = "192.168.100.5"

local client, router, server, other =
  netns.new("pr-client"), netns.new("pr-cnf"), netns.new("pr-server"), netns.new("pr-other")

link.veth {
  name = "eth0", netns = client, address = "10.0.2.2/24",
  peer = { name = "clients", netns = router, address = "10.0.2.1/24" },
}
link.veth {
  name = "servers", netns = router, address = "10.0.1.1/24",
  peer = { name = "eth0", netns = server, address = "10.0.1.2/24" },
}
local uplink = link.veth {
  name = "uplink", netns = server, address = "192.168.0.2/24",
  peer = { name = "eth0", netns = other, address = "192.168.0.1/24" },
}
server:link("lo"):add_address(VIP .. "/32")

client:route { dst = "default", via = "10.0.2.1" }
router:route { dst = VIP, via = "10.0.1.2" }
router:sysctl("net.ipv4.ip_forward", 1)
server:route { dst = "default", via = "192.168.0.1" }

probe.serve(server, { tcp = 8080, reply = "hello from " .. VIP })

local function try(pings, timeout)
  local ping = probe.ping(client, VIP, { count = pings, interval = "20ms", timeout = timeout })
  local ok, answer = pcall(probe.tcp, client, VIP .. ":8080", { timeout = timeout })
  return ping, ok and ('"%s"'):format(answer.reply) or answer.code
end

--- IP packets that the server sent to the wrong router (ARP is no IP packet).
local function misled()
  return tonumber(other:exec("awk '/^Ip: [0-9]/ { print $4 }' /proc/net/snmp").stdout)
end

local ping, tcp = try(2, "300ms")
print(("before: ping %s got %d of %d replies, tcp says %s"):format(VIP, ping.received, ping.sent, tcp))
print(("        the other router got %d packets that it has no way for"):format(misled()))
assert(ping.received == 0 and tcp == "ETIMEDOUT", "the path should be broken without the policy")

local r = policy.router { name = "return-path", attach = { { uplink, "egress" } } }
r:set { { from = VIP, via = "10.0.1.1", dev = server:link("eth0") } }
print(("policy: from %s via %s dev %s"):format(VIP, r:list()[1].via, r:list()[1].dev.name))

local before = misled()
ping, tcp = try(5, "2s")
local stats = r:stats()[1]
print(("after:  ping %s got %d of %d replies, tcp says %s"):format(VIP, ping.received, ping.sent, tcp))
print(("        the policy routed %d packets, %d bytes; the other router got %d more"):format(
  stats.packets,
  stats.bytes,
  misled() - before
))
assert(ping.received == 5 and tcp == ('"hello from %s"'):format(VIP), "the policy should have healed the path")
assert(stats.packets >= 8, "pings and a TCP connection pass the policy")

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
