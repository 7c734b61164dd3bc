--- How long it takes to change large policy sets: r:set of COUNT policies, r:add with 100,000 present.
---
--- usage: cnfscript bench/sets.lua NAMESPACE [COUNT]

local cnf = require "cnf"
local netns, link, policy = cnf.netns, cnf.link, cnf.policy

local name, count = cnf.args[1], math.tointeger(cnf.args[2] or 1000000)
local ns = netns.new(name)
local dev = link.veth { name = "a", netns = ns, address = "10.0.0.1/24", peer = { name = "b", netns = ns } }

local function timed(what, work)
  local start = os.clock()
  work()
  print(("  %s: %.3f s of processor time"):format(what, os.clock() - start))
end

local function policies(n)
  local all = {}
  for i = 0, n - 1 do
    all[i + 1] = {
      from = ("%d.%d.%d.%d/32"):format(20 + (i >> 24), i >> 16 & 255, i >> 8 & 255, i & 255),
      via = "10.0.0.2",
      dev = dev,
    }
  end
  return all
end

local r = policy.router { name = "sets", attach = { { dev, "egress" } } }
for _, n in ipairs { 1000, 100000, count } do
  local all
  timed(("a table of %d policies"):format(n), function() all = policies(n) end)
  timed(("r:set of %d policies"):format(n), function() r:set(all) end)
  timed(("r:set of the same %d again"):format(n), function() r:set(all) end)
  if n <= 100000 then
    timed(("r:add with %d present"):format(n), function()
      r:add { from = "30.0.0.1", via = "10.0.0.2", dev = dev }
    end)
  end
end
cnf.exit(0)
