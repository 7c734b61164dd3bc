--- Mirrors: which packets are copied, what the copies look like, and that the originals do not mind.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test, link, mirror = cnf.test, cnf.link, cnf.mirror

local families = {
  { from = "10.0.0.2", to = "198.51.100.1", head = 20 },
  { from = "fd00::2", to = "2001:db8:99::1", head = 40 },
}

--- The lab with a monitor: `mon` in the router's namespace, whose other end notes what it gets.
local function lab_with_monitor(t)
  local net = lab.new(t)
  net.analyser = t:netns("lab-m")
  local far
  net.mon, far = link.veth({ name = "mon", netns = net.ns, peer = { name = "mon", netns = net.analyser } })
  net.copies = lab.tap()
  cnf.bpf.attach(far, "ingress", net.copies.programs.tap)
  return net
end

for _, direction in ipairs({ "ingress", "egress", "both" }) do
  test.case("copies of all packets, " .. direction, function(t)
    local net = lab_with_monitor(t)
    -- By the last way it goes out, as the kernel routes it.
    local from = direction == "egress" and net.link.h3 or net.link.inside
    local m = mirror.to({ from = from, to = net.mon, direction = direction })
    for _, row in ipairs(families) do
      local way, note = net:way(nil, { from = row.from, to = row.to })
      t:equal({ way, note.ttl, note.length, note.times }, { "h3", 63, row.head + 40, 1 })
      local copy = t:eventually(function()
        return net.copies.maps.notes:get(net.number)
      end)
      local ttl = direction == "egress" and 63 or 64
      t:equal({ copy.ttl, copy.length, copy.times, copy.tag }, { ttl, row.head + 40, 1, 0 })
    end
    local stats = m:stats()
    t:ok(stats.seen.packets >= 2 and stats.mirrored.packets == stats.seen.packets)
    t:equal(stats.failed.packets, 0)
    m:detach()
    stats = m:stats()
    net:way(nil, { from = "10.0.0.2", to = "198.51.100.1" })
    t:equal(m:stats(), stats, "detached, it sees nothing")
  end)
end

test.case("which packets match", function(t)
  local net = lab_with_monitor(t)
  local four = { from = "10.0.0.2", to = "198.51.100.1", sport = 1000, dport = 2000 }
  local six = { from = "fd00::2", to = "2001:db8:99::1", sport = 1000, dport = 2000 }
  local function with(packet, changes)
    local made = {}
    for key, value in pairs(packet) do
      made[key] = value
    end
    for key, value in pairs(changes) do
      made[key] = value
    end
    return made
  end
  local tcp = with(four, { proto = "tcp" })
  --- What is matched, packets that are copied, packets that are not.
  local cases = {
    { {}, { four, six, tcp }, {} },
    { { from = "10.0.0.0/24" }, { four, tcp }, { six } },
    { { from = "10.0.0.2" }, { four }, { six } },
    { { from = "10.0.0.3" }, {}, { four, six } },
    { { from = "0.0.0.0/0" }, { four }, { six } },
    -- Not alone: neighbour discovery has such a source, too.
    { { from = "::/0", to = "2001:db8:99::/48" }, { six }, { four } },
    { { from = "fd00::/64" }, { six }, { four } },
    { { from = "fd00::/9", to = "2001:db8:99::/48" }, { six }, { four } },
    { { from = "fd00::/64", to = "2001:db8:98::/48" }, {}, { six, four } },
    { { to = "198.51.100.0/25" }, { four }, { six } },
    { { to = "198.51.100.128/25" }, {}, { four, six } },
    { { proto = "udp" }, { four, six }, { tcp } },
    { { proto = 6 }, { tcp }, { four, six } },
    { { proto = "tcp", dport = 2000 }, { tcp }, { four, with(tcp, { dport = 2001 }) } },
    { { sport = 1000 }, { four, six, tcp }, { with(four, { sport = 1001 }), with(four, { proto = "icmp" }) } },
    { { port = 1000 }, { four, with(six, { sport = 9, dport = 1000 }) }, { with(four, { sport = 2 }) } },
    { { proto = "icmp" }, { with(four, { proto = "icmp" }) }, { four } },
    { { vlan = 5 }, { with(four, { vlan = 5 }), with(six, { vlan = 5 }) }, { four, with(four, { vlan = 6 }) } },
    { { from = "10.0.0.2" }, { with(four, { vlan = 5 }) }, {} },
  }
  for i, case in ipairs(cases) do
    local match, copied, left = table.unpack(case)
    local m = mirror.to({ from = net.link.inside, to = net.mon, direction = "ingress", match = match })
    local base = m:stats().mirrored.packets
    local numbers = {}
    for j, packet in ipairs(copied) do
      numbers[net:inject({ packet })] = j
    end
    for _, packet in ipairs(left) do
      net:inject({ packet })
    end
    t:eventually(function()
      return m:stats().seen.packets >= #copied + #left
    end)
    t:eventually(function()
      for number in pairs(numbers) do
        if not net.copies.maps.notes:get(number) then
          return false
        end
      end
      return true
    end)
    -- Neighbour discovery and the like may match what names no field.
    if next(match) then
      t:equal(m:stats().mirrored.packets - base, #copied, "case " .. i)
    end
    m:detach()
  end
end)

test.case("fragments behind the first have its ports", function(t)
  local net = lab_with_monitor(t)
  for _, row in ipairs(families) do
    local m = mirror.to({ from = net.link.inside, to = net.mon, direction = "ingress", match = { proto = "udp", dport = 2000 } })
    local id = 4711
    local function part(dport, fields)
      fields.from, fields.to, fields.sport, fields.dport, fields.id = row.from, row.to, 1000, dport, id
      return fields
    end
    net:inject({ part(2000, { more = true, size = 40 }), part(2000, { offset = 48, size = 40 }) })
    id = 4712
    net:inject({ part(2001, { more = true, size = 40 }), part(2001, { offset = 48, size = 40 }) })
    t:eventually(function()
      return m:stats().seen.packets >= 4
    end)
    t:equal(m:stats().mirrored.packets, 2)
    m:detach()
  end
end)

test.case("a tagged frame's copy keeps its tag", function(t)
  local net = lab_with_monitor(t)
  local m = mirror.to({ from = net.link.inside, to = net.mon, direction = "ingress" })
  local number = net:inject({ { from = "10.0.0.2", to = "198.51.100.1", vlan = 9 } })
  local copy = t:eventually(function()
    return net.copies.maps.notes:get(number)
  end)
  t:equal(copy.tag, 1)
  m:detach()
end)

test.case("a sample is the share it says", function(t)
  local net = lab_with_monitor(t)
  local count = os.getenv("CNF_SLOW") and 640 or 6400
  local packets = {}
  for i = 1, count do
    packets[i] = { from = "10.0.0.2", to = "198.51.100.1", sport = i, size = 8 }
  end
  for _, row in ipairs({ { "1/64", 1 / 64 }, { "5%", 0.05 }, { 0.5, 0.5 }, { 1, 1 } }) do
    local sample, share = table.unpack(row)
    -- Six standard deviations: wrong once in 500 million runs.
    local expected, spread = count * share, 6 * math.sqrt(count * share * (1 - share))
    local m = mirror.to({
      from = net.link.inside, to = net.mon, direction = "ingress", sample = sample, match = { to = "198.51.100.1" },
    })
    local ways = net:fates(nil, packets)
    t:equal(#ways, count, "every original came to its end")
    local got = m:stats().mirrored.packets
    t:ok(math.abs(got - expected) <= spread, ("%s: %d copies of %d"):format(sample, got, count))
    m:detach()
  end
end)

test.case("a target that is down costs copies, not originals", function(t)
  local net = lab_with_monitor(t)
  local m = mirror.to({ from = net.link.inside, to = net.mon, direction = "ingress", match = { proto = "udp" } })
  net.mon:down()
  t:equal((net:way(nil, { from = "10.0.0.2", to = "198.51.100.1" })), "h3")
  t:equal({ m:stats().failed.packets, m:stats().mirrored.packets }, { 1, 0 })
  net.mon:delete()
  t:equal((net:way(nil, { from = "10.0.0.2", to = "198.51.100.1" })), "h3")
  t:equal({ m:stats().failed.packets, m:stats().mirrored.packets }, { 2, 0 })
end)

test.case("mirrors that face each other end", function(t)
  local net = lab_with_monitor(t)
  local there = mirror.to({ from = net.link.h3, to = net.mon, direction = "egress", match = { proto = "udp" } })
  local back = mirror.to({ from = net.mon, to = net.link.h3, direction = "egress", match = { proto = "udp" } })
  local _, note = net:way(nil, { from = "10.0.0.2", to = "198.51.100.1" })
  t:equal(note.times, 1)
  t:equal({ there:stats().mirrored.packets, back:stats().mirrored.packets }, { 1, 0 })
end)

test.case("with the policy router behind it", function(t)
  local net = lab_with_monitor(t)
  local r = net:router()
  r:set({ net:by(1, { from = "10.0.0.0/24" }) })
  local m = mirror.to({ from = net.link.inside, to = net.mon, direction = "ingress", match = { proto = "udp" } })
  t:equal((net:way(r, { from = "10.0.0.2", to = "198.51.100.1" })), "h1")
  t:equal(m:stats().mirrored.packets, 1)
end)

test.case("links without a link header", function(t)
  local net = lab_with_monitor(t)
  local tun = link.tun({ name = "tun0", netns = net.ns, address = "10.5.0.1/24" })
  local other = link.tun({ name = "tun1", netns = net.ns, address = "10.6.0.1/24" })
  local problem = t:raises(function()
    mirror.to({ from = tun, to = net.mon })
  end, "EINVAL")
  t:ok(problem.message:find("have no link header", 1, true))
  local copies = lab.tap()
  cnf.bpf.attach(other, "egress", copies.programs.tap_l3)
  local m = mirror.to({ from = tun, to = other, direction = "egress", match = { proto = "udp", dport = 2000 } })
  local number = net:inject({ { from = "10.5.0.1", to = "10.5.0.2" } }, { link = tun, headerless = true })
  local copy = t:eventually(function()
    return copies.maps.notes:get(number)
  end)
  t:equal({ copy.ttl, copy.length }, { 64, 60 })
  m:detach()
  -- From a link with a header to one without: it is taken off.
  m = mirror.to({ from = net.link.inside, to = other, direction = "ingress", match = { proto = "udp" } })
  number = net:inject({ { from = "10.0.0.2", to = "198.51.100.1" } })
  copy = t:eventually(function()
    return copies.maps.notes:get(number)
  end)
  t:equal({ copy.ttl, copy.length }, { 64, 60 })
end)

test.case("what is refused leaves nothing behind", function(t)
  local net = lab_with_monitor(t)
  local elsewhere = net.analyser:link("mon")
  for _, row in ipairs({
    { { from = net.mon, to = elsewhere }, "EXDEV" },
    { { from = net.mon, to = net.mon }, "EINVAL" },
    { { from = net.mon }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, sample = 0 }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, sample = "2/1" }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, sample = "1/0" }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, sample = true }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, direction = "down" }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, match = { form = "10.0.0.0/8" } }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, match = { from = "10.0.0.0/8", to = "fd00::/8" } }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, match = { port = 70000 } }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, match = { vlan = 4096 } }, "EINVAL" },
    { { from = net.mon, to = net.link.inside, first = true, last = true }, "EINVAL" },
  }) do
    t:raises(function()
      mirror.to(row[1])
    end, row[2])
  end
  local first = mirror.to({ from = net.link.inside, to = net.mon, direction = "egress" })
  t:raises(function()
    -- Its ingress could be had, its egress not.
    mirror.to({ from = net.link.inside, to = net.mon })
  end, "EEXIST")
  mirror.to({ from = net.link.inside, to = net.mon, direction = "ingress" }):detach()
  first:detach()
  mirror.to({ from = net.link.inside, to = net.mon })
end)
