--- A hub and COUNT namespaces, each with a veth to the hub, an address and a default route.
---
--- usage: cnfscript bench/hub.lua PREFIX COUNT
--- Prints "ready" when all is there, then stays until it is stopped.

local cnf = require "cnf"
local netns, link = cnf.netns, cnf.link

local prefix, count = cnf.args[1], math.tointeger(cnf.args[2])
local hub = netns.new(prefix .. "hub")

for i = 1, count do
  local leaf = netns.new(prefix .. i)
  link.veth {
    name = "leaf" .. i, netns = hub, address = ("10.77.%d.1/24"):format(i),
    peer = { name = "eth0", netns = leaf, address = ("10.77.%d.2/24"):format(i) },
  }
  leaf:route { dst = "default", via = ("10.77.%d.1"):format(i) }
end

print "ready"
io.stdout:flush()
cnf.wait()
