--- Dual stack: the same policies for IPv4 and IPv6, on one router.
---
---                                  +-- blue  10.1.0.2, fd00:1::2 --+
---   client 10.0.0.2, fd00::2 --- gate                              +-- server 192.0.2.80, 2001:db8::80
---                                  +-- green 10.2.0.2, fd00:2::2 --+
---
--- What comes from the client's subnets goes by green in both families; a web connection goes by blue in both, with one
--- policy that names no address at all.
---
--- usage: cnfscript scripts/dual_stack.lua [--keep]
--- output:
---   IPv4: ping 3 of 3 by green, tcp 80 by blue
---   IPv6: ping 3 of 3 by green, tcp 80 by blue

local cnf = require "cnf"
local netns, link, policy, probe = cnf.netns, cnf.link, cnf.policy, cnf.probe

local client, gate, server = netns.new("ds-client"), netns.new("ds-gate"), netns.new("ds-server")
local _, inside = link.veth {
  name = "eth0", netns = client, address = { "10.0.0.2/24", "fd00::2/64" },
  peer = { name = "inside", netns = gate, address = { "10.0.0.1/24", "fd00::1/64" } },
}
local ways, ends = {}, {}
for i, name in ipairs { "blue", "green" } do
  ways[name], ends[name] = link.veth {
    name = name, netns = gate, address = { ("10.%d.0.1/24"):format(i), ("fd00:%d::1/64"):format(i) },
    peer = { name = name, netns = server, address = { ("10.%d.0.2/24"):format(i), ("fd00:%d::2/64"):format(i) } },
  }
end
for _, address in ipairs { "192.0.2.80/32", "2001:db8::80/128" } do
  server:link("lo"):add_address(address)
end
gate:sysctl("net.ipv4.ip_forward", 1)
gate:sysctl("net.ipv6.conf.all.forwarding", 1)
client:route { dst = "default", via = "10.0.0.1" }
client:route { dst = "default", via = "fd00::1" }
server:route { dst = "10.0.0.0/24", via = "10.1.0.1" }
server:route { dst = "fd00::/64", via = "fd00:1::1" }

local r = policy.router { name = "gate", attach = { { inside, "ingress" } } }
r:set {
  { from = "10.0.0.0/24", via = "10.2.0.2", dev = ways.green },
  { from = "fd00::/64", via = "fd00:2::2", dev = ways.green },
  {
    proto = "tcp", dport = 80,
    nexthops = { { via = "10.1.0.2", dev = ways.blue }, { via = "fd00:1::2", dev = ways.blue } },
  },
}

local function way(fn)
  local before = { blue = ends.blue:stats().rx.packets, green = ends.green:stats().rx.packets }
  local result = fn()
  local blue = ends.blue:stats().rx.packets - before.blue
  local green = ends.green:stats().rx.packets - before.green
  return result, blue > green and "blue" or "green"
end

probe.serve(server, { tcp = 80, reply = "web" })
for _, family in ipairs { { "IPv4", "192.0.2.80", "192.0.2.80:80" }, { "IPv6", "2001:db8::80", "[2001:db8::80]:80" } } do
  local name, address, endpoint = table.unpack(family)
  local ping, by = way(function() return probe.ping(client, address, { count = 3, interval = "20ms" }) end)
  local web, web_by = way(function() return probe.tcp(client, endpoint) end)
  print(("%s: ping %d of %d by %s, tcp 80 by %s"):format(name, ping.received, ping.sent, by, web_by))
  assert(ping.received == 3 and by == "green", name .. " pings go by green")
  assert(web.reply == "web" and web_by == "blue", name .. " web traffic goes by blue")
end

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
