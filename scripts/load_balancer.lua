--- A load balancer: one address, several servers; connections stay where they are while servers come and go.
---
---   client --- balancer (192.168.100.5:80) --- { web1, web2, web3 }
---
--- usage: cnfscript scripts/load_balancer.lua [--keep]
--- output:
---   three servers, 300 connections    web1 #   web2 #   web3 #
---   web3 drains, 300 connections      web1 #   web2 #   web3 0
---   a long one of web3                still answered
---   web1 has weight 3                 web1 #   web2 #   web3 0
---   nobody left                       ECONNREFUSED

local cnf = require "cnf"
local netns, link, lb, probe = cnf.netns, cnf.link, cnf.lb, cnf.probe

local client, balancer = netns.new("lb-client"), netns.new("lb-balancer")
local _, front = link.veth {
  name = "eth0", netns = client, address = "192.168.100.2/24",
  peer = { name = "front", netns = balancer, address = { "192.168.100.1/24", "192.168.100.5/32" } },
}
balancer:sysctl("net.ipv4.ip_forward", 1)
local names, backends = {}, {}
for i = 1, 3 do
  local web = netns.new("lb-web" .. i)
  link.veth {
    name = "eth0", netns = web, address = ("10.1.%d.2/24"):format(i),
    peer = { name = "web" .. i, netns = balancer, address = ("10.1.%d.1/24"):format(i) },
  }
  -- The way back leads through the balancer.
  web:route { dst = "default", via = ("10.1.%d.1"):format(i) }
  probe.serve(web, { tcp = 8080, reply = "web" .. i })
  backends[i] = { address = ("10.1.%d.2"):format(i), port = 8080 }
  names[i] = "web" .. i
end

local s = lb.service { name = "web", vip = "192.168.100.5:80", attach = { front }, backends = backends }

--- Asks so many times; answers by server.
local function ask(what, count)
  local answers = { web1 = 0, web2 = 0, web3 = 0 }
  for _ = 1, count do
    local reply = probe.tcp(client, "192.168.100.5:80").reply
    answers[reply] = answers[reply] + 1
  end
  print(("%-33s web1 %d   web2 %d   web3 %d"):format(what, answers.web1, answers.web2, answers.web3))
  return answers
end

local even = ask("three servers, 300 connections", 300)
for _, name in ipairs(names) do
  assert(even[name] > 50 and even[name] < 150, name)
end

-- A connection that web3 has, held open by a shell.
s:set_backends { backends[3] }
local long = client:spawn { "bash", "-c", [[
  exec 3<>/dev/tcp/192.168.100.5/80
  echo open
  read -r && exec 3>&- && echo closed
]] }
local lines = long:lines()
assert(lines() == "open")
s:set_backends(backends)
s:drain(backends[3])
local drained = ask("web3 drains, 300 connections", 300)
assert(drained.web3 == 0 and s:connections(backends[3]) == 1)

-- Its packets still come to web3: the counters say so.
local before = s:stats()[3].requests.packets
long:write("\n")
assert(lines() == "closed")
while s:connections(backends[3]) > 0 do
  cnf.task.sleep("10ms")
end
assert(s:stats()[3].requests.packets > before)
print("a long one of web3                still answered")

s:set_backends { { address = "10.1.1.2", port = 8080, weight = 3 }, backends[2] }
local weighted = ask("web1 has weight 3", 400)
assert(weighted.web1 > 220 and weighted.web1 < 380)

s:set_backends {}
local ok, problem = pcall(probe.tcp, client, "192.168.100.5:80")
print(("nobody left                       %s"):format(ok and "answered" or problem.code))
assert(not ok and problem.code == "ECONNREFUSED")

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
