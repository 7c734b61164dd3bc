--- The policy router: which policy takes a packet. Every case asks `r:explain` and sends real packets; both must agree.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test = cnf.test

--- Sends each row's packet and asks about it: `way` is "h1" ..., "none" when it is dropped.
local function check(t, net, r, rows, options)
  local packets = {}
  for i, row in ipairs(rows) do
    packets[i] = row.packet
    row.packet.proto = row.packet.proto or "udp"
    row.packet.sport, row.packet.dport = row.packet.sport or 1000, row.packet.dport or 2000
  end
  local ways = net:fates(r, packets, options)
  for i, row in ipairs(rows) do
    local packet = row.packet
    local name = ("row %d: %s -> %s"):format(i, packet.from, packet.to)
    t:equal(ways[i], row.way, name)
    local said = r:explain({
      from = packet.from, to = packet.to, proto = packet.proto, sport = packet.sport, dport = packet.dport,
      mark = options and options.mark, vlan = packet.vlan,
    })
    local by = "h" .. net.ways
    if said.hop then
      by = said.hop.dev.name
    elseif said.policy and said.policy.action == "drop" then
      by = "none"
    end
    t:equal(by, row.way, name .. ", explained: " .. said.why)
    if row.why then
      t:ok(said.why:find(row.why, 1, true), said.why)
    end
  end
end

--- The same table for both families: addresses written for IPv4, and what they are in IPv6.
local function six(text)
  local a, b, c, d, length = text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)/?(%d*)$")
  local address = ("2001:db8:%x:%x:%x:%x::"):format(a, b, c, d)
  if length ~= "" then
    -- A byte of IPv4 is a word of IPv6.
    return ("%s/%d"):format(address, 32 + (length // 8) * 16 + (length % 8 > 0 and 8 + length % 8 or 0))
  end
  return address
end

local function in_family(family, value)
  local copy = {}
  for key, item in pairs(value) do
    if family == 4 then
      copy[key] = type(item) == "table" and in_family(family, item) or item
    elseif (key == "from" or key == "to") and type(item) == "string" then
      copy[key] = six(item)
    elseif item == "icmp" then
      copy[key] = "icmpv6"
    elseif type(item) == "table" then
      copy[key] = in_family(family, item)
    else
      copy[key] = item
    end
  end
  return copy
end

local function policies(net, family, rows)
  local set = {}
  for i, row in ipairs(in_family(family, rows)) do
    if row.way then
      local way = row.way
      row.way, row.family = nil, family
      row = net:by(way, row)
    end
    set[i] = row
  end
  return set
end

--- Orders: a set, and packets with the way that they take. h4 is the kernel's own way.
local orders = {
  {
    "source before destination, each by its longest prefix",
    {
      { from = "100.1.0.0/16", way = 1 },
      { from = "100.1.2.0/24", way = 2 },
      { to = "200.0.0.0/8", way = 3 },
      { to = "200.5.0.0/16", action = "drop" },
    },
    {
      { packet = { from = "100.1.9.1", to = "200.5.0.1" }, way = "h1", why = "source" },
      { packet = { from = "100.1.2.1", to = "200.5.0.1" }, way = "h2", why = "source" },
      { packet = { from = "100.2.2.1", to = "200.1.0.1" }, way = "h3", why = "destination" },
      { packet = { from = "100.2.2.1", to = "200.5.0.1" }, way = "none", why = "destination" },
      { packet = { from = "100.2.2.1", to = "201.5.0.1" }, way = "h4", why = "no policy matches" },
    },
  },
  {
    "conditional before source, whatever its prefix",
    {
      { from = "100.1.2.3/32", way = 1 },
      { proto = "udp", dport = 53, way = 2 },
      { from = "100.0.0.0/8", to = "200.0.0.0/8", way = 3 },
    },
    {
      { packet = { from = "100.1.2.3", to = "150.1.1.1" }, way = "h1", why = "source" },
      { packet = { from = "100.1.2.3", to = "150.1.1.1", dport = 53 }, way = "h2", why = "conditional" },
      { packet = { from = "100.1.2.3", to = "200.1.1.1" }, way = "h3", why = "conditional" },
      { packet = { from = "100.1.2.3", to = "150.1.1.1", dport = 53, proto = "tcp" }, way = "h1" },
    },
  },
  {
    "of conditional ones the lowest priority number, 1000 where none is given",
    {
      { from = "100.0.0.0/8", to = "200.0.0.0/8", proto = "udp", way = 1 },
      { proto = "udp", dport = 2000, priority = 999, way = 2 },
      { proto = "udp", sport = 7, priority = 1001, way = 3 },
      { proto = "udp", dport = 2001, priority = 0, action = "drop" },
      { from = "100.0.0.0/8", proto = "udp", dport = 2001, priority = 1, way = 3 },
    },
    {
      { packet = { from = "100.1.1.1", to = "200.1.1.1" }, way = "h2" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", dport = 9, sport = 7 }, way = "h1" },
      { packet = { from = "99.1.1.1", to = "200.1.1.1", dport = 9, sport = 7 }, way = "h3" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", dport = 2001 }, way = "none" },
    },
  },
  {
    "then longer from, then longer to, then more fields, then the earlier",
    {
      { to = "200.1.1.1/32", proto = "udp", dport = 2000, sport = 1000, way = 3 },
      { from = "100.1.0.0/16", proto = "udp", way = 1 },
      { from = "100.1.1.0/24", to = "200.0.0.0/8", way = 2 },
      { from = "100.1.1.0/24", to = "200.2.0.0/16", way = 3 },
      { from = "100.1.1.0/24", to = "200.2.0.0/16", proto = "udp", dport = 5, way = 1 },
      { from = "100.7.0.0/16", dport = 80, way = 1 },
      { from = "100.7.0.0/16", sport = 80, way = 2 },
    },
    {
      { packet = { from = "101.1.1.1", to = "200.1.1.1" }, way = "h3" },
      { packet = { from = "100.1.2.1", to = "200.1.1.1" }, way = "h1" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1" }, way = "h2" },
      { packet = { from = "100.1.1.1", to = "200.2.1.1" }, way = "h3" },
      { packet = { from = "100.1.1.1", to = "200.2.1.1", dport = 5 }, way = "h1" },
      { packet = { from = "100.7.1.1", to = "200.2.1.1", dport = 80, sport = 80 }, way = "h1" },
      { packet = { from = "100.7.1.1", to = "200.2.1.1", dport = 81, sport = 80 }, way = "h2" },
    },
  },
  {
    "every protocol by its name, ports of those that have them",
    {
      { proto = "tcp", way = 1 },
      { proto = "icmp", way = 2 },
      { proto = "sctp", dport = 99, way = 3 },
      { dport = 77, action = "drop" },
      { proto = 47, action = "drop" },
    },
    {
      { packet = { from = "100.1.1.1", to = "200.1.1.1", proto = "tcp" }, way = "h1" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", proto = "icmp" }, way = "h2" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", proto = "sctp", dport = 99 }, way = "h3" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", proto = "sctp" }, way = "h4" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", proto = "udp", dport = 77 }, way = "none" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", proto = "tcp", dport = 77 }, way = "h1" },
      { packet = { from = "100.1.1.1", to = "200.1.1.1", proto = "gre" }, way = "none" },
    },
  },
  {
    "pass ends the search and leaves the packet to the kernel",
    {
      { from = "100.1.0.0/16", way = 1 },
      { from = "100.1.2.0/24", action = "pass" },
      { to = "200.1.0.0/16", way = 2 },
      { to = "200.1.2.0/24", action = "pass" },
      { proto = "udp", dport = 9, action = "pass" },
      { proto = "udp", dport = 9, sport = 8, priority = 2000, action = "drop" },
    },
    {
      { packet = { from = "100.1.2.1", to = "200.1.1.1" }, way = "h4" },
      { packet = { from = "100.1.3.1", to = "200.1.1.1" }, way = "h1" },
      { packet = { from = "100.2.3.1", to = "200.1.1.1" }, way = "h2" },
      { packet = { from = "100.2.3.1", to = "200.1.2.1" }, way = "h4" },
      { packet = { from = "100.1.3.1", to = "200.1.1.1", dport = 9, sport = 8 }, way = "h4" },
    },
  },
  {
    "prefixes of every length and of none",
    {
      { from = "0.0.0.0/0", way = 1 },
      { from = "128.0.0.0/1", way = 2 },
      { from = "100.1.1.0/30", way = 3 },
      { from = "100.1.1.2/31", action = "drop" },
      { from = "100.1.1.3/32", way = 2 },
    },
    {
      { packet = { from = "100.1.1.0", to = "200.1.1.1" }, way = "h3" },
      { packet = { from = "100.1.1.2", to = "200.1.1.1" }, way = "none" },
      { packet = { from = "100.1.1.3", to = "200.1.1.1" }, way = "h2" },
      { packet = { from = "100.1.1.4", to = "200.1.1.1" }, way = "h1" },
      { packet = { from = "130.1.1.4", to = "200.1.1.1" }, way = "h2" },
    },
    only = 4,
  },
}

for _, order in ipairs(orders) do
  local name, set, rows = table.unpack(order, 1, 3)
  test.case(name, function(t)
    local net = lab.new(t, { ways = 4 })
    local r = net:router()
    for _, family in ipairs({ 4, 6 }) do
      if not order.only or order.only == family then
        r:set(policies(net, family, set))
        check(t, net, r, in_family(family, rows))
      end
    end
    -- Both families at once are as each alone.
    if not order.only then
      local both = policies(net, 4, set)
      for _, policy in ipairs(policies(net, 6, set)) do
        if policy.from or policy.to then
          both[#both + 1] = policy
        end
      end
      r:set(both)
      check(t, net, r, rows)
    end
  end)
end

test.case("the default takes what no policy takes, and pass takes it from the default", function(t)
  for _, family in ipairs({ 4, 6 }) do
    local net = lab.new(t, { ways = 4 })
    local hop = net:hop(2, family)
    local r = net:router({ default = { via = hop.via, dev = hop.dev } })
    local packet = function(from)
      return in_family(family, { from = from, to = "200.1.1.1" })
    end
    check(t, net, r, { { packet = packet("100.1.1.1"), way = "h2", why = "default" } })
    r:set(policies(net, family, {
      { from = "100.1.0.0/16", way = 1 },
      { from = "100.1.1.0/24", action = "pass" },
    }))
    check(t, net, r, {
      { packet = packet("100.1.2.1"), way = "h1" },
      { packet = packet("100.1.1.1"), way = "h4" },
      { packet = packet("100.2.1.1"), way = "h2", why = "default" },
    })
    local stats = r:stats()
    t:equal(#stats, 3)
    t:equal(stats[3].packets, 2, "the default's counter went on through set")
    t:equal(#r:list(), 2, "list() holds what set() was given")
    r:clear()
    check(t, net, r, { { packet = packet("100.1.1.1"), way = "h2", why = "default" } })
    -- The other family is not the default's: its next hop cannot take it.
    local other = family == 4 and { from = "2001:db8::1", to = "2001:db9::1" } or { from = "99.1.1.1", to = "98.1.1.1" }
    check(t, net, r, { { packet = other, way = "h4" } })
  end
end)

test.case("a default that drops drops both families", function(t)
  local net = lab.new(t, { ways = 2 })
  local r = net:router({ default = { action = "drop" } })
  check(t, net, r, {
    { packet = { from = "100.1.1.1", to = "200.1.1.1" }, way = "none" },
    { packet = { from = "2001:db8::1", to = "2001:db9::1" }, way = "none" },
  })
end)

test.case("a set means what its policies mean one by one", function(t)
  local net = lab.new(t)
  local r = net:router()
  local h1, h2 = net.link.h1, net.link.h2
  local given = {
    { from = "100.1.1.0/24", via = "10.1.1.2", dev = h1 },
    { from = "100.1.2.0/24", via = "10.1.1.2", dev = h1 },
    { from = "100.1.3.0/24", via = "10.1.2.2", dev = h2 },
    { from = "100.1.4.0/24", via = "10.1.1.2", dev = "h1" },
    { from = "100.1.5.0/24", via = "10.1.2.2", dev = "h2", onlink = true },
    { from = "100.1.6.0/24", via = "10.1.2.2" },
    { from = "100.1.7.0/24", dev = h2, onlink = false },
    { from = "100.1.8.8", via = "10.1.1.2", dev = h1, action = "route" },
    { from = "2001:db8::/48", via = "fd01:1::2", dev = h1, onlink = true },
    { from = "2001:db8:1::", action = "pass" },
    { to = "200.1.0.0/16", action = "drop" },
    { from = "100.2.0.0/16", to = "200.2.0.0/16", action = "drop", priority = 7 },
    { from = "100.3.0.0/16", proto = "udp", sport = 53, dport = 65535, via = "10.1.1.2", dev = h1 },
    { from = "100.3.0.0/16", proto = 6, action = "drop" },
    { from = "100.3.0.0/16", mark = 0xffffffff, vlan = 0, action = "pass" },
    { from = "100.4.0.0/16", nexthops = { { via = "10.1.1.2", dev = h1 }, { via = "10.1.2.2", dev = h2, weight = 3 } } },
    { from = "100.5.0.0/16", action = "drop", mirror = h2 },
    { via = "10.1.2.2", dev = h2 },
  }
  -- More than are read at a time.
  for i = 0, 299 do
    given[#given + 1] = { from = ("101.%d.%d.0/24"):format(i // 256, i % 256), via = "10.1.1.2", dev = i % 2 == 0 and h1 or "h1" }
  end
  r:set(given)
  local whole = r:list()
  t:equal(#whole, #given)
  t:equal(whole[1].dev, h1)
  t:equal(whole[3].dev, h2)
  r:clear()
  for _, one in ipairs(given) do
    r:add(one)
  end
  t:equal(r:list(), whole)
end)

test.case("add replaces an equal match, remove takes it away", function(t)
  local net = lab.new(t)
  local r = net:router()
  for _, family in ipairs({ 4, 6 }) do
    local one = function(rows)
      return policies(net, family, rows)[1]
    end
    local packet = in_family(family, { from = "100.1.1.1", to = "200.1.1.1" })
    r:set({})
    r:add(one({ { from = "100.1.1.0/24", way = 1 } }))
    check(t, net, r, { { packet = packet, way = "h1" } })
    r:add(one({ { from = "100.1.1.0/24", way = 2 } }))
    t:equal(#r:list(), 1, "an equal match is replaced")
    check(t, net, r, { { packet = packet, way = "h2" } })
    t:equal(r:stats()[1].packets, 2, "it is the same policy, its counter goes on")
    r:add(one({ { from = "100.1.1.0/24", proto = "udp", way = 1 } }))
    t:equal(#r:list(), 2, "another match is another policy")
    check(t, net, r, { { packet = packet, way = "h1" } })
    r:add(one({ { from = "100.1.1.0/24", proto = "udp", priority = 5, action = "drop" } }))
    t:equal(#r:list(), 2, "priority is no part of the match")
    check(t, net, r, { { packet = packet, way = "none" } })
    r:remove(one({ { from = "100.1.1.0/24", proto = "udp" } }))
    check(t, net, r, { { packet = packet, way = "h2" } })
    r:remove(r:list()[1])
    t:equal(r:list(), {})
    check(t, net, r, { { packet = packet, way = "h3" } })
    t:raises(function()
      r:remove(one({ { from = "100.1.1.0/24" } }))
    end, "ENOENT")
  end
end)

test.case("a mark is matched where the packet has one", function(t)
  local net = lab.new(t)
  local out = net.link.h3
  local r = net:router({ attach = { { out, "egress" } } })
  for _, family in ipairs({ 4, 6 }) do
    r:set(policies(net, family, {
      { mark = 7, way = 1 },
      { mark = 0xffffffff, way = 2 },
      { mark = 0, proto = "tcp", action = "drop" },
    }))
    local packet = in_family(family, { from = "100.1.1.1", to = "200.1.1.1" })
    local plain = in_family(family, { from = "100.1.1.1", to = "200.1.1.1", proto = "tcp" })
    check(t, net, r, { { packet = packet, way = "h1" } }, { link = out, mark = 7 })
    check(t, net, r, { { packet = packet, way = "h2" } }, { link = out, mark = 0xffffffff })
    check(t, net, r, { { packet = packet, way = "h3" } }, { link = out, mark = 8 })
    check(t, net, r, { { packet = plain, way = "none" } }, { link = out, mark = 0 })
  end
end)

test.case("conditional policies that differ in a prefix of no length are both there", function(t)
  local net = lab.new(t)
  local r = net:router()
  r:set({
    net:by(1, { proto = "udp", dport = 1, family = 4 }),
    net:by(2, { from = "0.0.0.0/0", proto = "udp", dport = 1 }),
    net:by(2, { from = "0.0.0.0/0", proto = "udp", dport = 2 }),
    net:by(1, { to = "0.0.0.0/0", proto = "udp", dport = 2 }),
  })
  check(t, net, r, {
    { packet = { from = "100.1.1.1", to = "200.1.1.1", dport = 1 }, way = "h1" },
    { packet = { from = "100.1.1.1", to = "200.1.1.1", dport = 2 }, way = "h2" },
  })
end)

test.case("every prefix length at once", function(t)
  local net = lab.new(t)
  local r = net:router()
  local set, rows = {}, {}
  -- Nested prefixes of all lengths; the packet differs from their address in one bit, so that the prefix that ends
  -- just before it is the longest that matches.
  for length = 1, 32 do
    local address = 0x55555555 & (0xffffffff << (32 - length))
    local text = ("%d.%d.%d.%d"):format(address >> 24, address >> 16 & 255, address >> 8 & 255, address & 255)
    set[length] = { from = ("%s/%d"):format(text, length), action = "drop" }
    if length % 3 > 0 then
      set[length] = net:by(length % 3, set[length])
      set[length].action = nil
    end
  end
  for length = 1, 31 do
    local address = 0x55555555 ~ (1 << (31 - length))
    local text = ("%d.%d.%d.%d"):format(address >> 24, address >> 16 & 255, address >> 8 & 255, address & 255)
    rows[length] = {
      packet = { from = text, to = "200.1.1.1" },
      way = length % 3 == 0 and "none" or "h" .. length % 3,
      why = ("%d bits"):format(length),
    }
  end
  r:set(set)
  check(t, net, r, rows)
  set, rows = {}, {}
  local words = "2a55:5555:5555:5555:5555:5555:5555:5555"
  local function written(bytes)
    local parts = {}
    for i = 1, 16, 2 do
      parts[#parts + 1] = ("%x"):format(bytes[i] << 8 | bytes[i + 1])
    end
    return table.concat(parts, ":")
  end
  for length = 1, 128 do
    local bytes = { string.byte(lab.address_bytes(words), 1, 16) }
    for i = 1, 16 do
      local keep = math.max(0, math.min(8, length - 8 * (i - 1)))
      bytes[i] = bytes[i] & (0xff << (8 - keep))
    end
    local policy = { to = ("%s/%d"):format(written(bytes), length), action = "drop" }
    if length % 3 > 0 then
      policy = net:by(length % 3, policy)
      policy.action = nil
    end
    set[length] = policy
  end
  for length = 3, 127 do
    local bytes = { string.byte(lab.address_bytes(words), 1, 16) }
    bytes[length // 8 + 1] = bytes[length // 8 + 1] ~ (0x80 >> length % 8)
    rows[#rows + 1] = {
      packet = { from = "2001:db8::1", to = written(bytes) },
      way = length % 3 == 0 and "none" or "h" .. length % 3,
      why = ("%d bits"):format(length),
    }
  end
  r:set(set)
  check(t, net, r, rows)
end)

test.case("links can be named, and are those of the router's namespace", function(t)
  local net = lab.new(t)
  local r = net:router()
  local hop = net:hop(2, 4)
  r:set({
    { from = "100.1.0.0/16", via = hop.via, dev = "h2", mirror = "h1" },
    { from = "100.2.0.0/16", nexthops = { { via = hop.via, dev = "h2" } } },
  })
  t:equal(r:list()[1].dev, net.link.h2)
  t:equal(r:list()[1].mirror, net.link.h1)
  t:equal(net:way(r, { from = "100.2.1.1", to = "200.1.1.1" }), "h2")
end)
