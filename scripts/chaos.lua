--- Chaos: what loss, bursts, duplicates and a blackhole of one service do to a path, each for as long as it is asked for.
---
---   client 10.0.0.1 --- 10.0.0.2 server, ports 53 and 80
---
--- usage: cnfscript scripts/chaos.lua [--keep]
--- output:
---   a fifth lost, seed 1            # of 200 came back
---   the same seed again             the same # came back
---   in bursts                       # of 200 lost
---   every packet twice              200 of 200 came back, 200 copies made
---   port 53 in a blackhole          53: ETIMEDOUT, 80: answers
---   300 ms later                    53: answers, 80: answers

local cnf = require "cnf"
local chaos, link, netns, probe, task = cnf.chaos, cnf.link, cnf.netns, cnf.probe, cnf.task

local client, server = netns.new("chaos-client"), netns.new("chaos-server")
local eth0 = link.veth {
  name = "eth0", netns = client, address = "10.0.0.1/24",
  peer = { name = "eth0", netns = server, address = "10.0.0.2/24" },
}
for _, port in ipairs { 53, 80 } do
  probe.serve(server, { udp = port, reply = "here" })
end

--- 200 pings; how many came back.
local function pings()
  return probe.ping(client, "10.0.0.2", { count = 200, interval = "1ms", timeout = "200ms" }).received
end

local function row(what, result, ...)
  print(("%-30s  %s"):format(what, result:format(...)))
end

local echo = { proto = "icmp" }
assert(pings() == 200)

local fault = chaos.inject(eth0, { loss = "20%", seed = 1, match = echo })
local first = pings()
fault:heal()
row("a fifth lost, seed 1", "%d of 200 came back", first)
assert(first > 130 and first < 190)

fault = chaos.inject(eth0, { loss = "20%", seed = 1, match = echo })
local again = pings()
fault:heal()
row("the same seed again", "the same %d came back", again)
assert(again == first)

-- In the bad state a fifth of the time, for five packets at a time on average.
fault = chaos.inject(eth0, { gemodel = { p = "5%", r = "20%" }, seed = 1, match = echo })
pings()
row("in bursts", "%d of 200 lost", fault:info().lost)
fault:heal()

fault = chaos.inject(eth0, { duplicate = 1, match = echo })
local back = pings()
row("every packet twice", "%d of 200 came back, %d copies made", back, fault:info().duplicated)
fault:heal()

--- "answers", or the code of the error.
local function ask(port)
  local ok, problem = pcall(probe.udp, client, "10.0.0.2:" .. port, { timeout = "50ms" })
  return ok and "answers" or problem.code
end

chaos.inject(eth0, { blackhole = true, match = { proto = "udp", port = 53 }, duration = "300ms" })
row("port 53 in a blackhole", "53: %s, 80: %s", ask(53), ask(80))
task.sleep("300ms")
row("300 ms later", "53: %s, 80: %s", ask(53), ask(80))

if cnf.args[1] ~= "--keep" then
  cnf.exit()
end
