--- Conditional routing: the way depends on protocol and port, not on the address alone.
---
---                      +-- fast 10.1.0.2 --+
---   client --- gate ---+                   +--- server 192.0.2.80
---                      +-- bulk 10.2.0.2 --+
---
--- Web traffic takes the fast path, telnet is dropped, all the rest of the subnet goes over the bulk path. Among conditional
--- policies the lower priority number wins; all of them go before plain source policies.
---
--- usage: cnfscript scripts/conditional_routing.lua [--keep]
--- output:
---   tcp 443 by fast, tcp 8080 by bulk, ping by bulk, telnet ETIMEDOUT
---   10.0.0.0/24 tcp dport 443: route
---   10.0.0.0/24 tcp dport 23: drop
---   10.0.0.0/24: route

local cnf = require "cnf"
local netns, link, policy, probe = cnf.netns, cnf.link, cnf.policy, cnf.probe

local SERVER = "192.0.2.80"

local client, gate, server = netns.new("cr-client"), netns.new("cr-gate"), netns.new("cr-server")
local _, inside = link.veth {
  name = "eth0", netns = client, address = "10.0.0.2/24",
  peer = { name = "inside", netns = gate, address = "10.0.0.1/24" },
}
local fast, fast_end = link.veth {
  name = "fast", netns = gate, address = "10.1.0.1/24",
  peer = { name = "fast", netns = server, address = "10.1.0.2/24" },
}
local bulk, bulk_end = link.veth {
  name = "bulk", netns = gate, address = "10.2.0.1/24",
  peer = { name = "bulk", netns = server, address = "10.2.0.2/24" },
}
server:link("lo"):add_address(SERVER .. "/32")
client:route { dst = "default", via = "10.0.0.1" }
server:route { dst = "10.0.0.0/24", via = "10.1.0.1" }
gate:sysctl("net.ipv4.ip_forward", 1)
for _, port in ipairs { 443, 8080, 23 } do
  probe.serve(server, { tcp = port, reply = "port " .. port })
end

local r = policy.router { name = "gate", attach = { { inside, "ingress" } } }
r:set {
  { from = "10.0.0.0/24", proto = "tcp", dport = 443, via = "10.1.0.2", dev = fast },
  { from = "10.0.0.0/24", proto = "tcp", dport = 23, action = "drop" },
  { from = "10.0.0.0/24", via = "10.2.0.2", dev = bulk },
}

local function way(fn)
  local before = { fast_end:stats().rx.packets, bulk_end:stats().rx.packets }
  local ok, problem = pcall(fn)
  if not ok then
    return problem.code
  end
  local by_fast = fast_end:stats().rx.packets - before[1]
  local by_bulk = bulk_end:stats().rx.packets - before[2]
  return by_fast > by_bulk and "by fast" or "by bulk"
end

local function tcp(port)
  return way(function() probe.tcp(client, SERVER .. ":" .. port, { timeout = "300ms" }) end)
end

local https, http, telnet = tcp(443), tcp(8080), tcp(23)
local ping = way(function()
  assert(probe.ping(client, SERVER, { count = 3, interval = "20ms" }).received == 3)
end)
print(("tcp 443 %s, tcp 8080 %s, ping %s, telnet %s"):format(https, http, ping, telnet))
assert(https == "by fast" and http == "by bulk" and ping == "by bulk" and telnet == "ETIMEDOUT")

for _, query in ipairs { { "tcp", 443 }, { "tcp", 23 }, { "udp", 53 } } do
  local found = r:explain { from = "10.0.0.2", to = SERVER, proto = query[1], dport = query[2] }
  local p = found.policy
  print(p.from .. (p.dport and (" %s dport %d"):format(p.proto, p.dport) or "") .. ": " .. p.action)
end

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
