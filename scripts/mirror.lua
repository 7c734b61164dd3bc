--- Mirrors: an analyser in a namespace of its own gets copies of what passes a gateway, and nobody else notices.
---
---   client --- gate --- server
---               \--- analyser: all of port 53, and one in 16 of everything else that comes in
---
--- usage: cnfscript scripts/mirror.lua [--keep]
--- output:
---   queries    20 answered of 20, 40 copies
---   pings      320 of 320 answered, # copies
---   analyser down: 20 answered of 20, 40 copies refused

local cnf = require "cnf"
local netns, link, mirror, probe = cnf.netns, cnf.link, cnf.mirror, cnf.probe

local client, gate = netns.new("mi-client"), netns.new("mi-gate")
local server, analyser = netns.new("mi-server"), netns.new("mi-analyser")
local _, inside = link.veth {
  name = "eth0", netns = client, address = "10.0.0.2/24",
  peer = { name = "inside", netns = gate, address = "10.0.0.1/24" },
}
link.veth {
  name = "eth0", netns = server, address = "10.0.1.2/24",
  peer = { name = "outside", netns = gate, address = "10.0.1.1/24" },
}
local tap = link.veth { name = "tap", netns = gate, peer = { name = "eth0", netns = analyser } }
client:route { dst = "default", via = "10.0.0.1" }
server:route { dst = "default", via = "10.0.1.1" }
gate:sysctl("net.ipv4.ip_forward", 1)
probe.serve(server, { udp = 53 })

-- Queries and their answers, whole; of pings only what comes in, one in 16.
local queries = mirror.to { name = "dns", from = inside, to = tap, match = { proto = "udp", port = 53 } }
local sample = mirror.to {
  name = "sample", from = inside, to = tap, direction = "ingress", sample = "1/16", match = { proto = "icmp" },
}

local function ask(count)
  local answered = 0
  for _ = 1, count do
    answered = answered + (probe.udp(client, "10.0.1.2:53", { send = "?" }).reply == "?" and 1 or 0)
  end
  return answered
end

print(("queries    %d answered of 20, %d copies"):format(ask(20), queries:stats().mirrored.packets))
assert(queries:stats().mirrored.packets == 40)

local ping = probe.ping(client, "10.0.1.2", { count = 320, interval = "1ms" })
local copies = sample:stats().mirrored.packets
print(("pings      %d of %d answered, %d copies"):format(ping.received, ping.sent, copies))
-- 20 on average; outside of this once in a million runs.
assert(copies > 2 and copies < 50)

tap:down()
local answered = ask(20)
print(("analyser down: %d answered of 20, %d copies refused"):format(answered, queries:stats().failed.packets))
assert(answered == 20 and queries:stats().failed.packets == 40)

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
