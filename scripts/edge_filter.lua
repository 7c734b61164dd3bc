--- An edge at XDP: a million networks denied, a rate for every source, and what is left forwarded, before the kernel has made
--- packets of the frames. The programs share the link's one hook, the filter before the forwarding.
---
---   10.1.0.0/16  client --- left [edge] right --- server  10.2.0.2
---
--- usage: cnfscript scripts/edge_filter.lua [--keep]
--- output:
---   10.1.0.1   20 of 20 came back
---   10.1.6.66  0 of 20 came back   denied, one of 1000001 networks
---   10.1.6.67  20 of 20 came back   allowed, inside of what is denied
---   10.1.0.2   # of 200 came back   limited to 50 a second
---   # frames forwarded at XDP

local cnf = require "cnf"
local filter, forward, link, netns, probe = cnf.filter, cnf.forward, cnf.link, cnf.netns, cnf.probe

local client, edge, server = netns.new("ef-client"), netns.new("ef-edge"), netns.new("ef-server")
local _, left = link.veth {
  name = "eth0", netns = client, address = { "10.1.0.1/16", "10.1.0.2/16", "10.1.6.66/16", "10.1.6.67/16" },
  peer = { name = "left", netns = edge, address = "10.1.255.254/16" },
}
local _, right = link.veth {
  name = "eth0", netns = server, address = "10.2.0.2/24",
  peer = { name = "right", netns = edge, address = "10.2.0.254/24" },
}
client:route { dst = "default", via = "10.1.255.254" }
server:route { dst = "default", via = "10.2.0.254" }
edge:sysctl("net.ipv4.ip_forward", 1)

-- A list such as those that are published, of addresses that have done harm.
local denied = { "10.1.6.0/24" }
for i = 1, 1000000 do
  denied[i + 1] = ("%d.%d.%d.%d"):format(100 + (i >> 16), i >> 8 & 255, i & 255, 9)
end
local guard = filter.xdp {
  link = left,
  -- As forwarding from a veth needs; on a card both take the driver's.
  mode = "generic",
  deny = denied,
  allow = "10.1.6.67",
  rate = { pps = 50, burst = 50, per = "source" },
}
local ways = forward.xdp { links = { left, right } }

local function try(source, count, why)
  local ping = probe.ping(client, "10.2.0.2", { source = source, count = count, interval = "1ms", timeout = "300ms" })
  print((("%-10s %d of %d came back   %s"):format(source, ping.received, count, why):gsub("%s+$", "")))
  return ping.received
end

assert(try("10.1.0.1", 20, "") == 20)
assert(try("10.1.6.66", 20, ("denied, one of %d networks"):format(#denied)) == 0)
assert(try("10.1.6.67", 20, "allowed, inside of what is denied") == 20)
local limited = try("10.1.0.2", 200, "limited to 50 a second")
assert(limited >= 45 and limited < 120, limited)
assert(guard:stats().limited.packets == 200 - limited)

local forwarded = ways:stats().forwarded.packets
print(("%d frames forwarded at XDP"):format(forwarded))
assert(forwarded > 100)

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
