--- The policy router with many policies: they are set in bounded time, and the right one is found.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test = cnf.test

local COUNT = os.getenv("CNF_SLOW") and 10000 or 100000

--- Source prefixes of several lengths, IPv4 and IPv6: policy `i` goes by way i % 3 + 1, or drops where that is 3.
local function address(i, family)
  if family == 6 then
    return ("2001:db8:%x:%x::"):format(i >> 16, i & 0xffff)
  end
  return ("%d.%d.%d.0"):format(100 + (i >> 16), i >> 8 & 255, i & 255)
end

local function policy(net, i, family)
  local prefix = address(i, family) .. (family == 6 and "/64" or "/24")
  if i % 3 == 2 then
    return { from = prefix, action = "drop" }
  end
  return net:by(i % 3 + 1, { from = prefix })
end

test.case("a hundred thousand policies", function(t)
  local net = lab.new(t)
  local r = net:router()
  local set = {}
  for i = 0, COUNT // 2 - 1 do
    set[#set + 1] = policy(net, i, 4)
    set[#set + 1] = policy(net, i, 6)
  end
  -- Wider and narrower ones, and conditional ones, among them.
  set[#set + 1] = { from = "96.0.0.0/3", action = "pass" }
  set[#set + 1] = { from = "2001:db8::/32", action = "pass" }
  set[#set + 1] = net:by(2, { from = "100.0.0.7/32" })
  set[#set + 1] = net:by(1, { proto = "udp", dport = 53, family = 4 })
  local start = cnf._test.now()
  r:set(set)
  local took = cnf._test.now() - start
  print(("r:set of %d policies took %.2f s"):format(#set, took))
  t:ok(took < 60, took)
  t:equal(#r:list(), #set)

  local packets, expected = {}, {}
  for n = 1, 200 do
    local i = (n * 7919) % (COUNT // 2)
    for _, family in ipairs({ 4, 6 }) do
      local from = address(i, family)
      packets[#packets + 1] = { from = family == 4 and from:gsub("0$", "9") or from .. "9", to = family == 4 and "200.0.0.1" or "2001:db9::1" }
      expected[#expected + 1] = i % 3 == 2 and "none" or "h" .. i % 3 + 1
    end
  end
  for _, more in ipairs({
    { { from = "100.0.0.7", to = "200.0.0.1" }, "h2" },
    { { from = "110.0.0.7", to = "200.0.0.1" }, "h3" },
    { { from = "100.0.2.1", to = "200.0.0.1", dport = 53 }, "h1" },
    { { from = "2001:db8:ffff::1", to = "2001:db9::1" }, "h3" },
  }) do
    packets[#packets + 1], expected[#expected + 1] = more[1], more[2]
  end
  t:equal((net:fates(r, packets)), expected)
  for i = 1, #packets, 40 do
    local packet = packets[i]
    local said = r:explain({ from = packet.from, to = packet.to, proto = "udp", sport = 1000, dport = packet.dport or 2000 })
    local by = said.hop and said.hop.dev.name or (said.policy.action == "drop" and "none" or "h3")
    t:equal(by, expected[i], said.why)
  end

  -- One more, and one less, of so many.
  start = cnf._test.now()
  r:add({ from = "100.0.0.9/32", action = "drop" })
  t:equal(net:way(r, { from = "100.0.0.9", to = "200.0.0.1" }), "none")
  r:remove({ from = "100.0.0.9/32" })
  t:equal(net:way(r, { from = "100.0.0.9", to = "200.0.0.1" }), "h1")
  print(("add and remove took %.2f s"):format(cnf._test.now() - start))
  local total = 0
  for _, row in ipairs(r:stats()) do
    total = total + row.packets
  end
  -- The second of the two is gone with its policy.
  t:equal(total, #packets + 1, "each packet was somebody's")
  r:clear()
  t:equal(#r:list(), 0)
  t:equal(net:way(r, packets[1]), "h3")
end)
