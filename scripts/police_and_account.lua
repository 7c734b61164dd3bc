--- Fair shares, and who used them: each customer of an access link gets so many packets a second, whatever the others send, and the
--- link's flows are counted.
---
---   quiet 10.0.0.1, greedy 10.0.0.2 --- access [gate] --- 10.0.0.99
---
--- usage: cnfscript scripts/police_and_account.lua [--keep]
--- output:
---   without limits: greedy got 400 answers, quiet 20
---   with limits:    greedy got # answers, quiet 20; # dropped
---   10.0.0.2 -> 10.0.0.99  # packets
---   10.0.0.1 -> 10.0.0.99  # packets

local cnf = require "cnf"
local flow, link, netns, police, probe = cnf.flow, cnf.link, cnf.netns, cnf.police, cnf.probe

local customers, gate = netns.new("pa-customers"), netns.new("pa-gate")
local _, access = link.veth {
  name = "eth0", netns = customers, address = { "10.0.0.1/24", "10.0.0.2/24" },
  peer = { name = "access", netns = gate, address = "10.0.0.99/24" },
}

--- How many of `count` requests were answered, sent as fast as they go.
local function answered(source, count)
  return probe.ping(customers, "10.0.0.99", {
    source = source, count = count, interval = 0, timeout = "200ms",
  }).received
end

local greedy, quiet = answered("10.0.0.2", 400), answered("10.0.0.1", 20)
print(("without limits: greedy got %d answers, quiet %d"):format(greedy, quiet))

local limit = police.limit {
  link = access, direction = "ingress", pps = 100, burst = 50, per = "source", match = { proto = "icmp" },
}
-- Behind the limit: what it drops is not counted.
local flows = flow.account { link = access, direction = "ingress", match = { proto = "icmp" } }
greedy, quiet = answered("10.0.0.2", 400), answered("10.0.0.1", 20)
local dropped = limit:stats().exceeded.packets
print(("with limits:    greedy got %d answers, quiet %d; %d dropped"):format(greedy, quiet, dropped))
assert(quiet == 20 and greedy < 200 and dropped == 400 - greedy)

for _, one in ipairs(flows:list { by = "packets" }) do
  print(("%s -> %s  %d packets"):format(one.from, one.to, one.packets))
end
local list = flows:list { by = "packets" }
assert(list[1].from == "10.0.0.2" and list[1].packets == greedy and list[2].packets == 20)

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
