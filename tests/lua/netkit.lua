--- netkit pairs: modes, policies, options of either end, and what an older kernel says.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local refused = require("refused")
local test, netkit, probe = cnf.test, cnf.netkit, cnf.probe

local function pair(t, options)
  local a, b = t:netns("a"), t:netns("b")
  local all = { name = "nk0", netns = a, address = { "10.0.0.1/24", "fd00::1/64" } }
  for word, value in pairs(options) do
    all[word] = value
  end
  local peer = { name = "nk1", netns = b, address = { "10.0.0.2/24", "fd00::2/64" } }
  for word, value in pairs(options.peer or {}) do
    peer[word] = value
  end
  all.peer = peer
  local primary, other = netkit.pair(all)
  return primary, other, a, b
end

for _, mode in ipairs({ "l2", "l3" }) do
  test.case(mode .. ": both ends placed and addressed at creation, packets cross", function(t)
    t:requires("netkit")
    local p, q, a, b = pair(t, { mode = mode, mtu = 1400 })
    t:equal({ p.name, p.kind, q.name, q.kind }, { "nk0", "netkit", "nk1", "netkit" })
    t:equal({ p.netns, q.netns }, { a, b })
    t:ok(p.index ~= q.index)
    t:equal({ p:peer(), q:peer() }, { q, p })
    t:equal({ p:info().options.mode, p:info().mtu }, { mode, 1400 })
    t:equal(p:info().options.policy, "forward")
    for _, ip in ipairs({ "10.0.0.2", "fd00::2" }) do
      t:eventually(function()
        return probe.ping(a, ip, { count = 1, timeout = 0.3 }).received == 1
      end)
    end
    t:ok(p:stats().tx.packets > 0)
    q:delete()
    t:raises(function()
      p:info()
    end, "ENODEV")
  end)
end

test.case("l3 is the default", function(t)
  t:requires("netkit")
  t:equal(pair(t, {}):info().options.mode, "l3")
end)

for _, row in ipairs({
  { "primary", { policy = "blackhole" } },
  { "peer", { peer = { policy = "blackhole" } } },
}) do
  test.case("policy blackhole of the " .. row[1], function(t)
    t:requires("netkit")
    local p, q, a = pair(t, row[2])
    local other = row[1] == "primary" and "forward" or "blackhole"
    t:equal(p:info().options.policy, row[1] == "primary" and "blackhole" or "forward")
    t:equal(p:info().options.peer_policy, other)
    for _, ip in ipairs({ "10.0.0.2", "fd00::2" }) do
      t:equal(probe.ping(a, ip, { count = 2, interval = 0.01, timeout = 0.2 }).received, 0)
    end
    -- The blackhole is at the end that transmits.
    t:equal(q:stats().rx.packets > 0, row[1] == "peer")
  end)
end

test.case("an l2 pair has the MAC addresses that were asked for, an l3 pair none", function(t)
  t:requires("netkit")
  local p, q = pair(t, {
    mode = "l2",
    mac = "02:00:00:00:00:01",
    peer = { mac = "02:00:00:00:00:02" },
  })
  t:equal({ p:info().mac, q:info().mac }, { "02:00:00:00:00:01", "02:00:00:00:00:02" })
  local error = t:raises(function()
    pair(t, { mac = "02:00:00:00:00:01" })
  end, "EINVAL")
  t:ok(error.hint:find('mode="l2"', 1, true))
end)

test.case("scrub, headroom and tailroom, or what they need", function(t)
  t:requires("netkit")
  for _, row in ipairs({
    { "netkit_scrub", { scrub = "none", peer = { scrub = "default" } }, "scrub", "none", "6.13" },
    { "netkit_headroom", { headroom = 64, tailroom = 32 }, "headroom", 64, "6.14" },
  }) do
    local feature, options, word, value, since = table.unpack(row)
    if cnf.probe_feature(feature) then
      t:equal(pair(t, options):info().options[word], value)
    else
      local error = t:raises(function()
        pair(t, options)
      end, "EOPNOTSUPP")
      t:ok(tostring(error):find("needs Linux " .. since, 1, true), tostring(error))
    end
  end
end)

test.case("bad options", function(t)
  t:requires("netkit")
  for _, row in ipairs({
    { { mode = "l4" }, "mode" },
    { { policy = "forwards" }, "policy" },
    { { peer = { polcy = "forward" } }, "policy" },
    { { scrub = 7.5 }, "scrub" },
  }) do
    refused(t, "EINVAL", row[2], pair, t, row[1])
  end
end)

test.case("without netkit the error says what it needs", function(t)
  if cnf.probe_feature("netkit") then
    return
  end
  local error = t:raises(function()
    pair(t, {})
  end, "EOPNOTSUPP")
  t:ok(tostring(error):find("netkit.pair(nk0)", 1, true), tostring(error))
  t:ok(tostring(error):find("needs Linux 6.7", 1, true) or tostring(error):find("CONFIG_NETKIT", 1, true))
end)
