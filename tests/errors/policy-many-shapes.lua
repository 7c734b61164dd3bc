--- More shapes than a router holds.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-policy-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, address = "10.0.0.1/24", peer = { name = "eth1", netns = ns } })
local r = cnf.policy.router({ name = "edge", attach = { { eth0, "egress" } } })

local set = {}
for i = 0, 64 do
  set[#set + 1] = { from = "10.0.0.0/" .. i // 8 + 8, to = "10.0.0.0/" .. i % 8 + 8, action = "drop" }
end
r:set(set)
