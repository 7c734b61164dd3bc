--- A policy chain: by source, else by destination, else the default, else the kernel's own routing.
---
---   vip 10.0.0.7, plain 10.0.0.8 --- gate --- { premium, partner, transit } --- world
---
--- usage: cnfscript scripts/policy_chain.lua [--keep]
--- output:
---   10.0.0.7 -> 198.51.100.1  source policy        premium
---   10.0.0.8 -> 198.51.100.1  destination policy   partner
---   10.0.0.8 -> 203.0.113.1   default              transit
---   10.0.0.8 -> 10.3.0.2      passed to the kernel kernel

local cnf = require "cnf"
local netns, link, policy, probe = cnf.netns, cnf.link, cnf.policy, cnf.probe

local clients, gate, world = netns.new("pc-clients"), netns.new("pc-gate"), netns.new("pc-world")
local _, inside = link.veth {
  name = "eth0", netns = clients, address = { "10.0.0.7/24", "10.0.0.8/24" },
  peer = { name = "inside", netns = gate, address = "10.0.0.1/24" },
}
local ways, ends = {}, {}
for i, name in ipairs { "premium", "partner", "transit", "kernel" } do
  ways[name], ends[name] = link.veth {
    name = name, netns = gate, address = ("10.%d.0.1/24"):format(i == 4 and 3 or i + 10),
    peer = { name = name, netns = world, address = ("10.%d.0.2/24"):format(i == 4 and 3 or i + 10) },
  }
end
clients:route { dst = "default", via = "10.0.0.1" }
gate:sysctl("net.ipv4.ip_forward", 1)
world:route { dst = "10.0.0.0/24", via = "10.3.0.1" }
for _, address in ipairs { "198.51.100.1/32", "203.0.113.1/32" } do
  world:link("lo"):add_address(address)
end

local r = policy.router {
  name = "chain",
  attach = { { inside, "ingress" } },
  default = { via = "10.13.0.2", dev = ways.transit },
}
r:set {
  { from = "10.0.0.7", via = "10.11.0.2", dev = ways.premium },
  { to = "198.51.100.0/24", via = "10.12.0.2", dev = ways.partner },
  -- A destination that is passed is left to the kernel, the default notwithstanding.
  { to = "10.3.0.0/24", action = "pass" },
}

--- Sends pings and tells which link carried them.
local function carried(source, to)
  local before = {}
  for name, l in pairs(ends) do
    before[name] = l:stats().rx.packets
  end
  local ping = probe.ping(clients, to, { source = source, count = 4, interval = "10ms" })
  assert(ping.received == 4, ("no way from %s to %s"):format(source, to))
  for name, l in pairs(ends) do
    if l:stats().rx.packets - before[name] >= 4 then
      return name
    end
  end
end

for _, row in ipairs {
  { "10.0.0.7", "198.51.100.1", "source policy", "premium" },
  { "10.0.0.8", "198.51.100.1", "destination policy", "partner" },
  { "10.0.0.8", "203.0.113.1", "default", "transit" },
  { "10.0.0.8", "10.3.0.2", "passed to the kernel", "kernel" },
} do
  local source, to, stage, expected = table.unpack(row)
  local way = carried(source, to)
  print(("%s -> %-13s %-20s %s"):format(source, to, stage, way))
  assert(way == expected, ("expected %s"):format(expected))
end

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
