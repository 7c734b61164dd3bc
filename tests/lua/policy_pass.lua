--- The policy router: what it leaves alone, and what becomes of a packet that it routes.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test, probe = cnf.test, cnf.probe

local function total(r, word)
  return r:stats().total[word].packets
end

local families = {
  { family = 4, from = "100.1.1.1", to = "200.1.1.1", net = "100.1.1.0/24" },
  { family = 6, from = "2001:db8::1", to = "2001:db9::1", net = "2001:db8::/32" },
}
local FAR = { [4] = "198.51.100.1", [6] = "2001:db8:99::1" }
local TO = { [4] = "198.51.100.0/24", [6] = "2001:db8:99::/64" }

test.case("local, broadcast, multicast and link-local destinations pass", function(t)
  local net = lab.new(t)
  local r = net:router({ default = { action = "drop" } })
  local other = "02:00:00:00:77:77"
  local rows = {
    { from = "10.0.0.2", to = "10.0.0.1" },
    { from = "10.0.0.2", to = "10.1.3.1" },
    { from = "10.0.0.2", to = "10.0.0.255" },
    { from = "10.0.0.2", to = "10.1.2.255" },
    { from = "10.0.0.2", to = "255.255.255.255" },
    { from = "10.0.0.2", to = "224.0.0.9" },
    { from = "10.0.0.2", to = "239.1.2.3" },
    { from = "10.0.0.2", to = "169.254.3.4" },
    { from = "10.0.0.2", to = "127.0.0.1" },
    { from = "10.0.0.2", to = "0.0.0.0" },
    { from = "fd00::2", to = "fd00::1" },
    { from = "fd00::2", to = "fd01:2::1" },
    { from = "fd00::2", to = "fd00::" },
    { from = "fd00::2", to = "ff02::1" },
    { from = "fd00::2", to = "ff0e::1234" },
    { from = "fd00::2", to = "fe80::1234" },
    { from = "fd00::2", to = "::1" },
    -- Neighbour discovery for somebody, whom the box might stand proxy for.
    { from = "fd00::2", to = "2001:db8::5", proto = "icmpv6", icmp_type = 135, ttl = 255, explained = false },
    -- Not for this box at all.
    { from = "10.0.0.2", to = "100.1.1.1", to_mac = "ff:ff:ff:ff:ff:ff", explained = false },
    { from = "10.0.0.2", to = "100.1.1.1", to_mac = "01:00:5e:00:00:01", explained = false },
    { from = "10.0.0.2", to = "100.1.1.1", to_mac = other, explained = false },
  }
  for i, row in ipairs(rows) do
    local before, dropped = total(r, "local"), total(r, "dropped")
    net:inject({ row }, { to_mac = row.to_mac })
    t:eventually(function()
      return total(r, "local") > before or error("row " .. i)
    end)
    t:equal(total(r, "dropped"), dropped, "row " .. i)
    if row.explained ~= false then
      local said = r:explain({ from = row.from, to = row.to })
      t:equal(said.policy, nil, row.to .. ": " .. said.why)
      t:ok(said.why:find("kernel", 1, true), said.why)
    end
  end
  -- What looks like it, but is not: these are dropped.
  for _, packet in ipairs({
    { from = "10.0.0.2", to = "10.0.0.3" },
    { from = "10.0.0.2", to = "10.2.2.255" },
    { from = "fd00::2", to = "fec0::1" },
    { from = "fd00::2", to = "2001:db8::5", proto = "icmpv6", icmp_type = 135, ttl = 64 },
    { from = "fd00::2", to = "2001:db8::5", proto = "icmpv6", icmp_type = 128, ttl = 255 },
  }) do
    t:equal(net:way(r, packet), "none")
    t:equal(r:explain({ from = packet.from, to = packet.to, proto = packet.proto }).policy.action, "drop")
  end
  t:equal(total(r, "dropped"), 5, "and nothing else was dropped")
end)

test.case("the box is reached whatever the policies say, by a neighbour that has to be found first", function(t)
  local net = lab.new(t)
  net:router({ default = { action = "drop" } })
  for _, address in ipairs({ "10.0.0.1", "fd00::1", "10.1.2.1", "fd01:2::1" }) do
    t:equal(probe.ping(net.client, address, { count = 2, interval = "5ms" }).received, 2, address)
  end
end)

test.case("addresses that come and go are known", function(t)
  local net = lab.new(t)
  local r = net:router({ default = { action = "drop" } })
  for _, row in ipairs({
    { address = "203.0.113.7/32", from = "10.0.0.2", to = "203.0.113.7" },
    { address = "2001:db8:7::7/128", from = "fd00::2", to = "2001:db8:7::7" },
    { address = "203.0.113.9/24", from = "10.0.0.2", to = "203.0.113.255" },
  }) do
    local packet = { from = row.from, to = row.to }
    local function explained()
      return r:explain(packet).policy == nil
    end
    local packets = {}
    for i = 1, 20 do
      packets[i] = packet
    end
    --- Whether the packets pass. Twenty of them, since neighbour discovery passes too and is counted with them.
    local function passes()
      local said = explained()
      local here, gone = total(r, "local"), total(r, "dropped")
      net:inject(packets)
      t:eventually(function()
        return total(r, "local") - here + total(r, "dropped") - gone >= #packets
      end)
      local passed = total(r, "dropped") == gone
      -- Between two equal answers nothing has changed under the packet.
      if explained() == said then
        t:equal(said, passed, "explained")
      end
      return passed
    end
    t:ok(not passes())
    net.link.h2:add_address(row.address)
    t:eventually(passes)
    -- The same address elsewhere keeps it local.
    net.ns:link("lo"):add_address(row.address)
    net.link.h2:delete_address(row.address)
    if not row.to:find("255") then
      t:never(function()
        return not passes()
      end, { during = "50ms" })
    end
    net.ns:link("lo"):delete_address(row.address)
    t:eventually(function()
      return not passes()
    end)
  end
end)

test.case("TTL falls at ingress; at its end the kernel answers", function(t)
  local net = lab.new(t)
  local r = net:router()
  r:set({ net:by(1, { from = "10.0.0.0/24" }), net:by(1, { from = "fd00::/64" }) })
  for _, row in ipairs({
    { from = "10.0.0.2", to = "198.51.100.1", counter = "IcmpInTimeExcds" },
    { from = "fd00::2", to = "2001:db8:99::1", counter = "Icmp6InTimeExcds" },
  }) do
    for _, ttl in ipairs({ 255, 64, 2 }) do
      local way, note = net:way(r, { from = row.from, to = row.to, ttl = ttl })
      t:equal({ way, note.ttl }, { "h1", ttl - 1 })
    end
    for _, ttl in ipairs({ 1, 0 }) do
      local expired = total(r, "expired")
      net:inject({ { from = row.from, to = row.to, ttl = ttl } })
      t:eventually(function()
        return total(r, "expired") == expired + 1
      end)
    end
    -- As traceroute: the sender is told.
    local function told()
      local text = net.client:exec("nstat -asz").stdout
      return tonumber(text:match(row.counter .. "%s+(%d+)"))
    end
    local before = told()
    net.client:exec({ "ping", row.from:find(":") and "-6" or "-4", "-c1", "-W1", "-t1", row.to }, { check = false })
    t:equal(told() - before, 1, row.counter)
  end
  t:equal(total(r, "routed"), 6)
end)

test.case("TTL does not fall at egress, where the kernel has done it", function(t)
  local net = lab.new(t)
  local out = net.link.h3
  local r = net:router({ attach = { { out, "egress" } } })
  r:set({ net:by(1, { from = "10.0.0.0/24" }), net:by(1, { from = "fd00::/64" }) })
  for _, row in ipairs({ { from = "10.0.0.2", to = "198.51.100.1" }, { from = "fd00::2", to = "2001:db8:99::1" } }) do
    local way, note = net:way(r, { from = row.from, to = row.to, ttl = 64 })
    t:equal({ way, note.ttl }, { "h1", 63 }, "forwarded by the kernel")
    for _, ttl in ipairs({ 64, 2, 1 }) do
      way, note = net:way(r, { from = row.from, to = row.to, ttl = ttl }, { link = out })
      t:equal({ way, note.ttl }, { "h1", ttl }, "sent by the box itself")
    end
  end
  t:equal(total(r, "expired"), 0)
end)

test.case("next hops: by the neighbour table, on the link, beyond its routes, of the other family", function(t)
  local net = lab.new(t)
  net:add_far_addresses()
  -- IPv6 neighbours answer for addresses of their own link alone.
  net.far.h2:add_address("2001:db8:99::1/128")
  net.far.h1:add_address("192.0.2.1/32")
  net.far.h1:add_address("2001:db8:aa::1/128")
  local r = net:router()
  local h1, h2 = net.link.h1, net.link.h2
  local rows = {
    { 4, "via and dev", { via = "10.1.2.2", dev = h2 }, "h2" },
    { 6, "via and dev", { via = "fd01:2::2", dev = h2 }, "h2" },
    { 4, "via alone", { via = "10.1.2.2" }, "h2" },
    { 6, "via alone", { via = "fd01:2::2" }, "h2" },
    { 4, "dev alone", { dev = h2 }, "h2" },
    { 6, "dev alone", { dev = h2 }, "h2" },
    { 4, "onlink", { via = "192.0.2.1", dev = h1, onlink = true }, "h1" },
    { 6, "onlink", { via = "2001:db8:aa::1", dev = h1, onlink = true }, "h1" },
    { 4, "IPv6 neighbour", { via = "fd01:1::2", dev = h1 }, "h1" },
  }
  for _, row in ipairs(rows) do
    local family, name, hop, way = table.unpack(row)
    name = ("%s, IPv%d"):format(name, family)
    hop.to = TO[family]
    r:set({ hop })
    t:equal(r:list()[1].dev, net.link[way], name .. ": its link is told")
    local before = net.far[way]:stats().rx.packets
    local ping = probe.ping(net.client, FAR[family], { count = 3, interval = "5ms" })
    t:equal(ping.received, 3, name)
    t:ok(net.far[way]:stats().rx.packets - before >= 3, name .. ": by " .. way)
    t:equal(r:stats()[1].packets, 3, name)
    t:equal(r:explain({ from = "fd00::2", to = FAR[6] }).policy ~= nil, family == 6, name)
  end
end)

test.case("a neighbour that is not known yet is looked for, and its packet waits", function(t)
  local net = lab.new(t)
  net:add_far_addresses()
  for _, hook in ipairs({ { net.link.inside, "ingress" }, { net.link.h3, "egress" } }) do
    local r = net:router({ attach = { hook } })
    for family = 4, 6, 2 do
      r:set({ net:by(1, { to = TO[family] }) })
      for _, neigh in ipairs(net.ns:neighs({ dev = net.link.h1 })) do
        net.ns:exec({ "ip", "neigh", "del", neigh.dst, "dev", "h1" })
      end
      local ping = probe.ping(net.client, FAR[family], { count = 3, interval = "20ms" })
      t:equal({ ping.received, r:stats()[1].packets }, { 3, 3 }, ("%s, IPv%d"):format(hook[2], family))
    end
    r:detach()
  end
end)

test.case("a tag is matched by vlan= alone, and routing strips it", function(t)
  local net = lab.new(t)
  for _, out in ipairs({ false, net.link.h3 }) do
    local r = net:router({ attach = { out and { out, "egress" } or { net.link.inside, "ingress" } } })
    local options = out and { link = out } or {}
    for _, row in ipairs(families) do
      r:set({
        net:by(1, { vlan = 7, family = row.family }),
        net:by(2, { from = row.net }),
        { vlan = 9, proto = "udp", dport = 5, action = "drop" },
      })
      local function packet(more)
        local made = { from = row.from, to = row.to }
        for key, value in pairs(more or {}) do
          made[key] = value
        end
        return made
      end
      local way, note = net:way(r, packet({ vlan = 7 }), options)
      t:equal({ way, note.tag, note.length }, { "h1", 0, (row.family == 4 and 20 or 40) + 40 })
      t:equal(note.ttl, out and 64 or 63)
      way, note = net:way(r, packet(), options)
      t:equal({ way, note.tag }, { "h2", 0 }, "untagged")
      t:equal(net:way(r, packet({ vlan = 9, dport = 5 }), options), "none")
      local unmatched = total(r, "unmatched")
      net:inject({ packet({ vlan = 8 }), packet({ vlan = 9 }) }, options)
      t:eventually(function()
        return total(r, "unmatched") == unmatched + 2
      end)
      t:equal(r:explain({ from = row.from, to = row.to, vlan = 7 }).hop.dev.name, "h1")
      t:equal(r:explain({ from = row.from, to = row.to, vlan = 8 }).policy, nil)
      t:equal(r:explain({ from = row.from, to = row.to }).hop.dev.name, "h2")
    end
    r:detach()
  end
end)

test.case("fragments follow their first; one seen without it, the policies that name no port", function(t)
  local net = lab.new(t)
  local r = net:router()
  for _, row in ipairs(families) do
    r:set({ net:by(1, { dport = 5, family = row.family }), net:by(2, { from = row.net }) })
    local function fragment(id, offset, more)
      return { from = row.from, to = row.to, dport = 5, id = id, offset = offset, more = more }
    end
    local ways = net:fates(r, {
      fragment(100, 0, true), fragment(100, 40, true), fragment(100, 80, false),
      fragment(101, 40, false),
      fragment(102, 40, true), fragment(102, 0, true), fragment(102, 80, false),
    })
    t:equal(ways, { "h1", "h1", "h1", "h2", "h2", "h1", "h1" })
    -- The protocol is told in every fragment.
    r:set({ net:by(1, { proto = "udp", dport = 6, family = row.family }), net:by(3, { proto = "udp", family = row.family }) })
    t:equal(net:fates(r, { fragment(103, 40, false) }), { "h3" })
  end
end)

test.case("large datagrams go through whole", function(t)
  local net = lab.new(t)
  net:add_far_addresses()
  local r = net:router()
  probe.serve(net.sink, { udp = 5000 })
  local text = ("0123456789"):rep(700)
  for family, to in pairs({ [4] = "198.51.100.1:5000", [6] = "[2001:db8:99::1]:5000" }) do
    r:set({ net:by(1, { proto = "udp", dport = 5000, family = family }), { to = TO[family], action = "drop" } })
    t:equal(probe.udp(net.client, to, { send = text }).reply, text)
    t:equal(r:stats()[1].packets, 5, "all fragments are the policy's")
    r:set({ net:by(2, { to = TO[family] }) })
    t:equal(probe.ping(net.client, FAR[family], { count = 2, size = 4000 }).received, 2)
  end
end)

test.case("a packet is routed once, however many of the router's hooks see it", function(t)
  local net = lab.new(t)
  local links = net.link
  local r = net:router({ attach = { { links.h1, "egress" }, { links.h2, "egress" }, { links.h3, "egress" } } })
  for _, row in ipairs({ { "10.0.0.0/24", "10.0.0.2", "198.51.100.1" }, { "fd00::/64", "fd00::2", "2001:db8:99::1" } }) do
    local from, source, to = table.unpack(row)
    for _, way in ipairs({ "h1", "h2", "h3" }) do
      r:set({ net:by(tonumber(way:sub(2)), { from = from }) })
      local before = { total(r, "routed"), total(r, "redirected") }
      local took, note = net:way(r, { from = source, to = to })
      t:equal({ took, note.times }, { way, 1 })
      t:equal({ total(r, "routed") - before[1], total(r, "redirected") - before[2] }, { 1, 1 })
    end
  end
end)

test.case("two routers in two namespaces both route a packet", function(t)
  local net = lab.new(t)
  local mid = t:netns("lab-m")
  local near, far = cnf.link.veth({
    name = "m0", netns = net.ns, address = { "10.9.0.1/24", "fd09::1/64" },
    peer = { name = "m0", netns = mid, address = { "10.9.0.2/24", "fd09::2/64" } },
  })
  local out, last = cnf.link.veth({
    name = "m1", netns = mid, address = { "10.8.0.1/24", "fd08::1/64" },
    peer = { name = "m1", netns = net.sink, address = { "10.8.0.2/24", "fd08::2/64" } },
  })
  net:watch(last, "m1")
  local first = net:router({ attach = { { net.link.inside, "ingress" }, { near, "egress" } } })
  local second = net:router({ attach = { { far, "ingress" }, { out, "egress" } } })
  for _, row in ipairs({
    { "10.0.0.0/24", "10.0.0.2", "198.51.100.1", "10.9.0.2", "10.8.0.2" },
    { "fd00::/64", "fd00::2", "2001:db8:99::1", "fd09::2", "fd08::2" },
  }) do
    local from, source, to, hop1, hop2 = table.unpack(row)
    first:set({ { from = from, via = hop1, dev = near } })
    second:set({ { from = from, via = hop2, dev = out } })
    local way, note = net:way(nil, { from = source, to = to })
    t:equal({ way, note.ttl, note.times }, { "m1", 62, 1 })
    t:equal({ first:stats()[1].packets, second:stats()[1].packets }, { 1, 1 })
  end
end)

test.case("a mirror gets a copy of what the policy takes, whatever becomes of it", function(t)
  local net = lab.new(t)
  local r = net:router()
  local h2 = net.link.h2
  for _, row in ipairs({
    { from = "100.1.1.1", to = "200.1.1.1", net = "100.1.1.0/24" },
    { from = "2001:db8::1", to = "2001:db9::1", net = "2001:db8::/32" },
  }) do
    for _, policy in ipairs({
      net:by(1, { from = row.net, mirror = h2 }),
      { from = row.net, action = "pass", mirror = h2 },
      { from = row.net, action = "drop", mirror = h2 },
    }) do
      r:set({ policy })
      local mirrored, first = total(r, "mirrored"), net.number + 1
      net:inject({ { from = row.from, to = row.to } })
      local copies = policy.action == "drop" and 1 or 2
      t:eventually(function()
        local note = net.object.maps.notes:get(first)
        return note and note.times == copies
      end)
      t:equal(total(r, "mirrored"), mirrored + 1)
      t:equal(r:list()[1].mirror, h2)
    end
  end
end)
