--- Policy routing rules of both families.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local refused = require("refused")
local test, link, probe = cnf.test, cnf.link, cnf.probe

local RULES = {
  { { from = "10.0.0.0/8", table = 100 }, { family = "inet", from = "10.0.0.0/8", table = 100 } },
  { { from = "fd00::/16", table = 100 }, { family = "inet6", from = "fd00::/16", table = 100 } },
  { { to = "10.1.0.0/16", table = "main", priority = 50 }, { to = "10.1.0.0/16", table = 254, priority = 50 } },
  { { to = "fd01::/48", table = 1000, priority = 50 }, { to = "fd01::/48", table = 1000, priority = 50 } },
  { { fwmark = 7, table = 100 }, { fwmark = 7 } },
  { { fwmark = "0x10/0xff", table = 100, family = "inet6" }, { fwmark = 16, fwmask = 255, family = "inet6" } },
  { { iif = "lo", table = 100 }, { iif = "lo" } },
  { { oif = "v0", table = 100, family = "inet6" }, { oif = "v0" } },
  { { ipproto = "tcp", dport = 80, table = 100 }, { ipproto = 6, dport = 80 } },
  { { ipproto = 17, sport = "1000-2000", table = 100, family = "inet6" }, { ipproto = 17, sport = "1000-2000" } },
  { { from = "10.2.0.0/16", type = "blackhole" }, { type = "blackhole" } },
  { { from = "fd02::/48", type = "unreachable" }, { type = "unreachable" } },
  { { priority = 10, ["goto"] = 32766 }, { priority = 10, ["goto"] = 32766, type = "goto" } },
  { { from = "10.3.0.0/16", invert = true, table = 100 }, { invert = true } },
  { { table = "main", suppress_prefixlength = 0, priority = 5 }, { suppress_prefixlength = 0 } },
}

for number, row in ipairs(RULES) do
  local options, expected = row[1], row[2]
  test.case(("rule %d is there, alone, and goes"):format(number), function(t)
    local ns = t:netns("rule")
    link.veth({ name = "v0", netns = ns, peer = { netns = ns } })
    local before = #ns:rules()
    local rule = ns:rule(options)
    t:equal(#ns:rules(), before + 1)
    local info = rule:info()
    local got = {}
    for word in pairs(expected) do
      got[word] = info[word]
    end
    t:equal(got, expected)
    t:raises(function()
      ns:rule(options.priority and options or { from = options.from, to = options.to, table = options.table,
        priority = info.priority, fwmark = options.fwmark, iif = options.iif, oif = options.oif,
        ipproto = options.ipproto, dport = options.dport, sport = options.sport, type = options.type,
        invert = options.invert, family = info.family })
    end, "EEXIST")
    rule:delete()
    t:equal(#ns:rules(), before)
    t:raises(function()
      rule:delete()
    end, "ENOENT")
    t:raises(function()
      rule:info()
    end, "ENODEV")
  end)
end

test.case("packets follow it", function(t)
  local a, b = t:netns("a"), t:netns("b")
  link.veth({
    name = "v0",
    netns = a,
    address = { "10.0.0.1/24", "10.0.0.3/24", "fd00::1/64", "fd00::3/64" },
    peer = { name = "w0", netns = b, address = { "10.0.0.2/24", "fd00::2/64" } },
  })
  for _, row in ipairs({
    { "10.5.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1" },
    { "fd05::1", "fd00::2", "fd00::3", "fd00::1" },
  }) do
    local ip, via, steered, other = table.unpack(row)
    b:link("lo"):add_address(ip)
    a:route({ dst = ip, via = via, table = 100 })
    local rule = a:rule({ from = steered, table = 100 })
    local ping = function(source)
      return probe.ping(a, ip, { count = 1, timeout = 0.2, source = source }).received
    end
    -- The kernel's first neighbour discovery can take a second.
    t:eventually(function()
      return ping(steered) == 1
    end)
    t:equal(ping(other), 0)
    rule:delete()
    t:equal(ping(steered), 0)
  end
end)

test.case("lists are filtered", function(t)
  local ns = t:netns("list")
  ns:rule({ from = "10.0.0.0/8", table = 100, priority = 10 })
  ns:rule({ from = "fd00::/16", table = 100, priority = 11 })
  for _, row in ipairs({
    { { table = 100 }, 2 },
    { { table = 100, family = "inet" }, 1 },
    { { priority = 11 }, 1 },
    { { from = "10.0.0.0/8" }, 1 },
    { { to = "10.0.0.0/8" }, 0 },
    { {}, 7 },
  }) do
    t:equal(#ns:rules(row[1]), row[2])
  end
end)

test.case("bad rules", function(t)
  local ns = t:netns("bad")
  for _, row in ipairs({
    { "EINVAL", "from", { from = "10.0.0.0/40" } },
    { "EINVAL", "different families", { from = "10.0.0.0/8", to = "fd00::/16" } },
    { "EINVAL", "fwmark", { fwmark = "seven" } },
    { "EINVAL", "not a protocol", { ipproto = "tpc" } },
    { "EINVAL", "not a port", { ipproto = "tcp", dport = "2000-1000" } },
    { "EINVAL", 'did you mean "priority"', { priorty = 1 } },
    { "EINVAL", "table", { table = "mian" } },
    { "EINVAL", "at most 15", { iif = "sixteen-letters!" } },
  }) do
    refused(t, row[1], row[2], ns.rule, ns, row[3])
  end
  t:equal(#ns:rules(), 5)
end)
