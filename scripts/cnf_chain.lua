--- A chain of network functions over netkit: each does one thing, packets pass all of them.
---
---   source 10.1.0.2 ---nk--- cnf1 (firewall) ---nk--- cnf2 (router) ---nk--- dest 10.3.0.2
---                                                         \---nk--- log 10.4.0.2
---
--- CNF1 drops UDP port 9 where the source's packets enter it. CNF2 sends web traffic to dest, and syslog for the same
--- destination to the log host instead.
---
--- usage: cnfscript scripts/cnf_chain.lua [--link veth] [--keep]     --link veth where the kernel has no netkit
--- requires: netkit
--- output:
---   ping source -> dest: 3 of 3
---   udp 9 (discard):  ETIMEDOUT, dropped by cnf1: 1
---   udp 514 (syslog): answered by log
---   tcp 80:           answered by dest

local cnf = require "cnf"
local bpf, link, netkit, netns = cnf.bpf, cnf.link, cnf.netkit, cnf.netns
local policy, probe = cnf.policy, cnf.probe

local words = table.concat(cnf.args, " ")
local use_veth, keep = words:find("--link veth", 1, true), words:find("--keep", 1, true)
if not use_veth and not bpf.has("netkit").available then
  cnf.error { code = "EOPNOTSUPP", message = bpf.has("netkit").reason, hint = "run it with --link veth" }
end

--- Two namespaces and the pair between them; the primary end is on the side of the network function `near`.
local function connect(near, name, near_address, far, far_address)
  local options = {
    name = name, netns = near, address = near_address .. "/24",
    peer = { name = "to-" .. near.name:sub(4), netns = far, address = far_address .. "/24" },
  }
  if use_veth then
    return link.veth(options)
  end
  options.mode = "l3"
  return netkit.pair(options)
end

--- Where packets that the far end sends enter the near one.
local entry = use_veth and "ingress" or "peer"

local source, cnf1, cnf2, dest, log =
  netns.new("cc-source"), netns.new("cc-cnf1"), netns.new("cc-cnf2"), netns.new("cc-dest"), netns.new("cc-log")
local in1 = connect(cnf1, "source", "10.1.0.1", source, "10.1.0.2")
local in2 = connect(cnf2, "cnf1", "10.2.0.1", cnf1, "10.2.0.2")
local to_dest = connect(cnf2, "dest", "10.3.0.1", dest, "10.3.0.2")
local to_log = connect(cnf2, "log", "10.4.0.1", log, "10.4.0.2")

source:route { dst = "default", via = "10.1.0.1" }
cnf1:route { dst = "default", via = "10.2.0.1" }
cnf2:route { dst = "10.1.0.0/24", via = "10.2.0.2" }
dest:route { dst = "default", via = "10.3.0.1" }
log:route { dst = "default", via = "10.4.0.1" }
-- The log host takes syslog for the destination's own address.
log:link("lo"):add_address("10.3.0.2/32")
for _, ns in ipairs { cnf1, cnf2 } do
  ns:sysctl("net.ipv4.ip_forward", 1)
end

local firewall = policy.router { name = "firewall", attach = { { in1, entry } } }
firewall:set { { proto = "udp", dport = 9, action = "drop" } }
local routing = policy.router { name = "routing", attach = { { in2, entry } } }
routing:set {
  { from = "10.1.0.0/24", proto = "udp", dport = 514, via = "10.4.0.2", dev = to_log },
  { from = "10.1.0.0/24", via = "10.3.0.2", dev = to_dest },
}

probe.serve(dest, { udp = 9, reply = "discard" })
probe.serve(dest, { tcp = 80, reply = "dest" })
probe.serve(dest, { udp = 514, reply = "dest" })
probe.serve(log, { udp = 514, address = "10.3.0.2", reply = "log" })

local ping = probe.ping(source, "10.3.0.2", { count = 3, interval = "20ms" })
print(("ping source -> dest: %d of %d"):format(ping.received, ping.sent))
local _, refused = pcall(probe.udp, source, "10.3.0.2:9", { timeout = "200ms" })
local dropped = firewall:stats()[1].packets
print(("udp 9 (discard):  %s, dropped by cnf1: %d"):format(refused.code, dropped))
local syslog = probe.udp(source, "10.3.0.2:514").reply
print(("udp 514 (syslog): answered by %s"):format(syslog))
local web = probe.tcp(source, "10.3.0.2:80").reply
print(("tcp 80:           answered by %s"):format(web))

assert(ping.received == 3 and refused.code == "ETIMEDOUT" and dropped == 1)
assert(syslog == "log" and web == "dest")

if not keep then
  cnf.exit()
end
