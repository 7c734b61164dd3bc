--- Routes: added, listed, taken by packets, deleted; IPv4 and IPv6 alike.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local test, probe = cnf.test, cnf.probe
local pair, refused = require("pair"), require("refused")

--- How many routes there are that the kernel did not make itself.
local function count(ns)
  local found = 0
  for _, route in ipairs(ns:routes({ table = "all" })) do
    found = found + (route.proto ~= "kernel" and 1 or 0)
  end
  return found
end

--- Options; what is found in the list by dst (and table).
local ROUTES = {
  { { dst = "default", via = "10.0.0.2" }, { dst = "default", via = "10.0.0.2", family = "inet" } },
  { { dst = "default", via = "fd00::2" }, { dst = "default", via = "fd00::2", family = "inet6" } },
  { { dst = "0.0.0.0/0", via = "10.0.0.2", metric = 7 }, { dst = "default", metric = 7 } },
  { { dst = "::/0", via = "fd00::2", metric = 7 }, { dst = "default", metric = 7 } },
  { { dst = "default", dev = "v0", family = "inet6" }, { dst = "default", family = "inet6", dev = "v0" } },
  { { dst = "10.1.0.0/16", via = "10.0.0.2" }, { dst = "10.1.0.0/16", proto = "boot", scope = "global" } },
  { { dst = "10.1.0.7", via = "10.0.0.2" }, { dst = "10.1.0.7/32" } },
  { { dst = "fd01::/48", via = "fd00::2" }, { dst = "fd01::/48" } },
  { { dst = "fd01::7", via = "fd00::2" }, { dst = "fd01::7/128" } },
  { { dst = "10.1.0.0/16", dev = "v0" }, { dst = "10.1.0.0/16", dev = "v0", scope = "link" } },
  { { dst = "fd01::/48", dev = "v0" }, { dst = "fd01::/48", dev = "v0" } },
  { { dst = "10.1.0.0/16", via = "fd00::2" }, { dst = "10.1.0.0/16", via = "fd00::2" } },
  { { dst = "10.1.0.0/16", via = "10.0.0.2", src = "10.0.0.1", mtu = 1300, metric = 5, proto = "static", table = 100 },
    { src = "10.0.0.1", mtu = 1300, metric = 5, proto = "static", table = 100 } },
  { { dst = "fd01::/48", via = "fd00::2", src = "fd00::1", mtu = 1300, metric = 5, proto = "static", table = 1000 },
    { src = "fd00::1", mtu = 1300, metric = 5, proto = "static", table = 1000 } },
  { { dst = "10.1.0.0/16", type = "blackhole" }, { type = "blackhole" } },
  { { dst = "fd01::/48", type = "unreachable" }, { type = "unreachable" } },
  { { dst = "10.1.0.0/16", type = "prohibit", table = "local" }, { type = "prohibit", table = 255 } },
  { { dst = "10.1.0.0/16", via = "192.0.2.1", dev = "v0", onlink = true }, { via = "192.0.2.1", onlink = true } },
  { { dst = "10.1.0.0/16", proto = 99, scope = 0, via = "10.0.0.2" }, { proto = "openr" } },
}

for _, row in ipairs(ROUTES) do
  local options, expected = row[1], row[2]
  local words = {}
  for word, value in pairs(options) do
    words[#words + 1] = word .. "=" .. tostring(value)
  end
  table.sort(words)
  test.case("route " .. table.concat(words, " "), function(t)
    local a = pair(t)
    local route = a:route(options)
    t:equal(count(a), 1)
    local info = route:info()
    local got = {}
    for word in pairs(expected) do
      got[word] = info[word]
    end
    t:equal(got, expected)
    t:raises(function()
      a:route(options)
    end, "EEXIST")
    route:delete()
    t:equal(count(a), 0)
    t:raises(function()
      route:info()
    end, "ENODEV")
    t:raises(function()
      route:delete()
    end, "ESRCH")
    t:ok(a:route(options) ~= route, "another route")
  end)
end

test.case("several next hops, with weights", function(t)
  local a = pair(t)
  local v4 = a:route({ dst = "10.1.0.0/16", nexthops = { { via = "10.0.0.2", weight = 3 }, { via = "10.0.0.3" } } })
  local hops = v4:info().nexthops
  t:equal({ hops[1].via, hops[1].weight, hops[1].dev }, { "10.0.0.2", 3, "v0" })
  t:equal({ hops[2].via, hops[2].weight }, { "10.0.0.3", 1 })
  local v6 = a:route({
    dst = "fd01::/48",
    nexthops = { { via = "fd00::2", dev = "v0", weight = 256 }, { via = "fd00::3", weight = 2 } },
  })
  t:equal(#v6:info().nexthops, 2)
  v4:delete()
  v6:delete()
  t:equal({ #a:routes({ dst = "10.1.0.0/16" }), #a:routes({ dst = "fd01::/48" }) }, { 0, 0 })
end)

test.case("packets take it", function(t)
  local a, b = pair(t)
  for _, row in ipairs({
    { "10.5.0.1", "10.5.0.1/32", "10.5.0.0/16", "10.0.0.2" },
    { "fd05::1", "fd05::1/128", "fd05::/48", "fd00::2" },
  }) do
    local ip, cidr, dst, via = table.unpack(row)
    b:link("lo"):add_address(cidr)
    t:equal(probe.ping(a, ip, { count = 1, timeout = 0.2 }).error, "ENETUNREACH")
    local route = a:route({ dst = dst, via = via })
    t:eventually(function()
      return probe.ping(a, ip, { count = 1, timeout = 0.2 }).received == 1
    end)
    route:delete()
    t:equal(probe.ping(a, ip, { count = 1, timeout = 0.2 }).received, 0)
  end
end)

test.case("lists are filtered", function(t)
  local a = pair(t)
  a:route({ dst = "10.1.0.0/16", via = "10.0.0.2", proto = "static" })
  a:route({ dst = "fd01::/48", via = "fd00::2", proto = "static" })
  a:route({ dst = "10.2.0.0/16", via = "10.0.0.2", table = 100 })
  a:route({ dst = "10.3.0.0/16", type = "blackhole" })
  for _, row in ipairs({
    { { proto = "static" }, 2 },
    { { proto = "static", family = "inet" }, 1 },
    { { dst = "10.1.0.0/16" }, 1 },
    { { dst = "10.2.0.0/16" }, 0 },
    { { table = 100 }, 1 },
    { { table = 101 }, 0 },
    { { type = "blackhole" }, 1 },
    { { via = "fd00::2" }, 1 },
    { { dev = "lo" }, 0 },
    { { dev = a:link("v0"), proto = "static" }, 2 },
    { { dst = "default" }, 0 },
    { { table = "all", dst = "10.2.0.0/16" }, 1 },
  }) do
    t:equal(#a:routes(row[1]), row[2])
  end
end)

test.case("bad routes", function(t)
  local a, b, _, w = pair(t)
  for _, row in ipairs({
    { "EINVAL", "dst is missing", {} },
    { "EINVAL", "not an address", { dst = "10.0.0/8" } },
    { "EINVAL", "prefix length", { dst = "10.0.0.0/33" } },
    { "EINVAL", "via", { dst = "default", via = "10.0.0" } },
    { "EINVAL", 'did you mean "via"', { dst = "default", vai = "10.0.0.2" } },
    { "EINVAL", "IPv4 gateway", { dst = "fd01::/48", via = "10.0.0.2" } },
    { "EINVAL", "is in netns", { dst = "10.1.0.0/16", dev = w } },
    { "ENODEV", "did you mean", { dst = "10.1.0.0/16", dev = "v9" } },
    { "EINVAL", "table", { dst = "default", via = "10.0.0.2", table = "mian" } },
    { "EINVAL", "proto", { dst = "default", via = "10.0.0.2", proto = "statik" } },
    { "EINVAL", "type", { dst = "default", type = "blackhol" } },
    { "ENETUNREACH", "invalid gateway", { dst = "10.1.0.0/16", via = "192.0.2.1" } },
    { "EHOSTUNREACH", "", { dst = "fd01::/48", via = "fd99::1" } },
    { "EINVAL", "weight", { dst = "10.1.0.0/16", nexthops = { { via = "10.0.0.2", weight = 999 } } } },
    { "EINVAL", "wieght", { dst = "10.1.0.0/16", nexthops = { { via = "10.0.0.2", wieght = 1 } } } },
    { "EINVAL", "either", { dst = "10.1.0.0/16", via = "10.0.0.2", nexthops = { { via = "10.0.0.2" } } } },
  }) do
    refused(t, row[1], row[2], a.route, a, row[3])
  end
  t:equal(#b:routes({ proto = "boot" }), 0)
end)
