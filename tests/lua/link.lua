--- Links: every kind with its options, made where it belongs, changed, moved, counted, deleted.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local test, netns, link, probe = cnf.test, cnf.netns, cnf.link, cnf.probe
local pair, refused = require("pair"), require("refused")

local function has_address(l, cidr)
  for _, a in ipairs(l:addresses()) do
    if a.address == cidr then
      return a
    end
  end
end

test.case("veth: both ends placed, named, addressed and up at creation", function(t)
  local a, b, v, w = pair(t)
  t:equal({ v.name, v.kind, w.name, w.kind }, { "v0", "veth", "w0", "veth" })
  t:equal(v.netns, a)
  t:equal(w.netns, b)
  t:ok(v.index ~= w.index, "their indexes are distinct")
  t:equal(a:link("v0"), v)
  t:equal(b:link("w0").index, w.index)
  for l, cidrs in pairs({ [v] = { "10.0.0.1/24", "fd00::1/64" }, [w] = { "10.0.0.2/24", "fd00::2/64" } }) do
    t:equal(l:info().up, true)
    for _, cidr in ipairs(cidrs) do
      t:equal(has_address(l, cidr).tentative, false)
    end
  end
  for _, ip in ipairs({ "10.0.0.2", "fd00::2" }) do
    t:equal(probe.ping(a, ip, { count = 1, timeout = 3 }).received, 1, ip)
  end
  t:equal(v:peer(), w)
  t:equal(w:peer(), v)
  t:equal(tostring(v), ("Link(v0 in netns %s)"):format(a.name))
end)

test.case("peer is found across namespaces, by any tool's pair", function(t)
  local a, b = t:netns("a"), t:netns("b")
  netns.host():exec({
    "ip", "-n", a.name, "link", "add", "x0", "type", "veth", "peer", "name", "x1", "netns", b.name,
  })
  t:equal(a:link("x0"):peer(), b:link("x1"))
  t:equal(b:link("x1"):peer(), a:link("x0"))
  local x = link.veth({ name = "y0", netns = a, peer = { name = "y1", netns = a } })
  t:equal(x:peer().name, "y1")
  t:equal(link.bridge({ name = "br0", netns = a }):peer(), nil)
  t:equal(a:link("lo"):peer(), nil)
end)

test.case("options of every link", function(t)
  local ns = t:netns("options")
  local v, w = link.veth({
    name = "v0",
    netns = ns.name,
    mac = "02:00:00:00:00:01",
    mtu = 1400,
    up = false,
    alias = "an alias",
    group = 7,
    txqueuelen = 55,
    numtxqueues = 2,
    numrxqueues = 2,
    index = 4711,
    address = "10.0.0.1/24",
    addrgenmode = "none",
    peer = { netns = ns, mac = "02:00:00:00:00:02", up = true },
  })
  local info = v:info()
  local shown = {}
  for _, word in ipairs({ "name", "mac", "mtu", "up", "alias", "group", "txqueuelen", "index" }) do
    shown[word] = info[word]
  end
  t:equal(shown, {
    name = "v0",
    mac = "02:00:00:00:00:01",
    mtu = 1400,
    up = false,
    alias = "an alias",
    group = 7,
    txqueuelen = 55,
    index = 4711,
  })
  t:equal({ info.numtxqueues, info.numrxqueues, info.netns, info.kind }, { 2, 2, ns.name, "veth" })
  t:equal({ w.name, w:info().mac, w:info().up }, { "v0-peer", "02:00:00:00:00:02", true })
  v:up()
  for _, a in ipairs(v:addresses()) do
    t:equal(a.address, "10.0.0.1/24", "no link-local address")
  end
end)

--- Kind, feature, options, what info().options must hold afterwards.
local KINDS = {
  { "bridge", { stp = "on", forward_delay = 4, ageing_time = 60, priority = 100, group_fwd_mask = 8 } },
  { "bridge", { vlan_filtering = true, vlan_protocol = "802.1q", vlan_default_pvid = 2,
    mcast_snooping = false }, needs = "bridge_vlan" },
  { "bridge", { stp = true }, { stp = "on" } },
  { "vlan", { id = 100, protocol = "802.1ad" }, below = true },
  { "vxlan", { id = 7, ["local"] = "10.0.0.1", remote = "10.0.0.2", dstport = 4790, learning = false, ttl = 9 } },
  { "vxlan", { id = 8, ["local"] = "fd00::1", remote = "fd00::2" }, { dstport = 4789, remote = "fd00::2" } },
  { "vxlan", { id = 9, group = "239.1.1.1", dev = "below" }, { group = "239.1.1.1" } },
  { "geneve", { id = 7, remote = "10.0.0.2", dstport = 6082, ttl = 3 } },
  { "geneve", { id = 8, remote = "fd00::2" } },
  { "dummy", {} },
  { "ifb", {} },
  { "macvlan", { mode = "bridge" }, below = true },
  { "macvlan", { mode = "private" }, below = true },
  { "ipvlan", { mode = "l3", flags = "private" }, below = true },
  { "vrf", { table = 100 } },
  { "bond", { mode = "active-backup", miimon = 50, fail_over_mac = "active" } },
  { "bond", { mode = "802.3ad", lacp_rate = "fast", xmit_hash_policy = "layer3+4", miimon = 100 } },
  { "tun", { mode = "tun" } },
  { "tun", { mode = "tap", multi_queue = true } },
  { "gre", { ["local"] = "10.0.0.1", remote = "10.0.0.2", key = 5, ttl = 64 },
    { ["local"] = "10.0.0.1", remote = "10.0.0.2", ikey = 5, okey = 5, ttl = 64 } },
  { "gretap", { ["local"] = "10.0.0.1", remote = "10.0.0.3" } },
  { "ip6gre", { ["local"] = "fd00::1", remote = "fd00::2", ikey = 1, okey = 2 } },
  { "ip6gretap", { ["local"] = "fd00::1", remote = "fd00::3" } },
  { "ipip", { ["local"] = "10.0.0.1", remote = "10.0.0.4", dev = "below" },
    { ["local"] = "10.0.0.1", remote = "10.0.0.4" } },
  { "sit", { ["local"] = "10.0.0.1", remote = "10.0.0.5" } },
  { "ip6tnl", { ["local"] = "fd00::1", remote = "fd00::4", mode = "ip6ip6" } },
  { "wireguard", {} },
}

for number, row in ipairs(KINDS) do
  local kind, options, expected = row[1], row[2], row[3] or row[2]
  test.case(("%s with its options (%d)"):format(kind, number), function(t)
    t:requires(kind, row.needs or kind)
    local ns = t:netns("kind")
    link.veth({ name = "below", netns = ns, peer = { name = "other", netns = ns } })
    local all = { name = "l0", netns = ns, address = { "10.9.0.1/24", "fd09::1/64" }, mtu = 1300 }
    for word, value in pairs(options) do
      all[word] = value
    end
    if row.below then
      all.link = "below"
    end
    local made = link[kind](all)
    local info = made:info()
    t:equal({ info.kind, made.kind, info.name, info.mtu, info.up }, { kind, kind, "l0", 1300, true })
    local got = {}
    for word in pairs(expected) do
      got[word] = info.options[word]
    end
    t:equal(got, expected)
    t:ok(has_address(made, "10.9.0.1/24") and has_address(made, "fd09::1/64"))
    made:delete()
    t:raises(function()
      made:info()
    end, "ENODEV")
  end)
end

test.case("vlan, macvlan and ipvlan carry packets; they stand on a link elsewhere too", function(t)
  local a, b, v, w = pair(t)
  for number, row in ipairs({
    { "macvlan", { mode = "bridge" }, nil },
    { "ipvlan", { mode = "l2" }, nil },
    { "vlan", { id = 7 }, true },
  }) do
    local kind, options, both = row[1], row[2], row[3]
    if cnf.probe_feature(kind) then
      local c = t:netns("c")
      local net4, net6 = ("10.%d.0."):format(number), ("fd0%d::"):format(number)
      options.name, options.netns, options.link = "m0", c, v
      options.address = { net4 .. "1/24", net6 .. "1/64" }
      local made = link[kind](options)
      t:equal({ made.netns, made:info().up }, { c, true })
      if both then
        options.netns, options.link, options.address = b, "w0", { net4 .. "2/24", net6 .. "2/64" }
        link[kind](options)
      else
        w:add_address(net4 .. "2/24")
        w:add_address(net6 .. "2/64")
      end
      for _, ip in ipairs({ net4 .. "2", net6 .. "2" }) do
        t:eventually(function()
          return probe.ping(c, ip, { count = 1, timeout = 0.2 }).received == 1
        end)
      end
      made:delete()
    end
  end
end)

test.case("bridge, vrf and bond take ports, at creation and later", function(t)
  for _, kind in ipairs({ "bridge", "vrf", "bond" }) do
    if cnf.probe_feature(kind) then
      local ns = t:netns(kind)
      local p = {}
      for i = 1, 3 do
        p[i] = link.veth({ name = "p" .. i, netns = ns, up = false, peer = { netns = ns } })
      end
      local options = { name = "m0", netns = ns, ports = { p[1], "p2" } }
      if kind == "vrf" then
        options.table = 10
      end
      local master = link[kind](options)
      p[3]:set({ master = master })
      for i = 1, 3 do
        t:equal(p[i]:info().master, "m0", kind)
      end
      p[3]:set({ master = false })
      t:equal(p[3]:info().master, nil)
      p[3]:set({ master = "m0" })
      t:equal(p[3]:info().master, "m0")
      local q = link.veth({ name = "q", netns = ns, up = false, master = "m0", peer = { netns = ns } })
      t:equal(q:info().master, "m0")
    end
  end
end)

test.case("a bridge forwards between its ports", function(t)
  local hub = t:netns("hub")
  local hosts, ports = {}, {}
  for i = 1, 3 do
    hosts[i] = t:netns("h" .. i)
    ports[i] = select(2, link.veth({
      name = "eth0",
      netns = hosts[i],
      address = { ("10.0.0.%d/24"):format(i), ("fd00::%d/64"):format(i) },
      peer = { name = "p" .. i, netns = hub },
    }))
  end
  link.bridge({ name = "br0", netns = hub, ports = ports })
  for _, ip in ipairs({ "10.0.0.2", "10.0.0.3", "fd00::2", "fd00::3" }) do
    t:eventually(function()
      return probe.ping(hosts[1], ip, { count = 1, timeout = 0.2 }).received == 1
    end)
  end
end)

test.case("a vrf routes by its own table", function(t)
  t:requires("vrf")
  local a, _, v = pair(t)
  local vrf = link.vrf({ name = "red", netns = a, table = 10 })
  v:set({ master = vrf })
  v:add_address("fd00::1/64")
  t:eventually(function()
    return probe.ping(a, "10.0.0.2", { count = 1, timeout = 0.2, dev = vrf }).received == 1
  end)
  t:eventually(function()
    return probe.ping(a, "fd00::2", { count = 1, timeout = 0.2, dev = "red" }).received == 1
  end)
  t:equal(probe.ping(a, "10.0.0.2", { count = 1, timeout = 0.2 }).received, 0)
  t:equal(#a:routes({ table = 10, dst = "10.0.0.0/24" }), 1)
end)

for _, row in ipairs({
  { "vxlan", "10.0.0.1", "10.0.0.2", { id = 7 } },
  { "vxlan", "fd00::1", "fd00::2", { id = 7 } },
  { "geneve", nil, "10.0.0.2", { id = 7 }, "10.0.0.1" },
  { "gre", "10.0.0.1", "10.0.0.2", { key = 7 } },
  { "gretap", "10.0.0.1", "10.0.0.2", {} },
  { "ip6gre", "fd00::1", "fd00::2", {} },
  { "ipip", "10.0.0.1", "10.0.0.2", {} },
  { "ip6tnl", "fd00::1", "fd00::2", { mode = "any" } },
  { "sit", "10.0.0.1", "10.0.0.2", {} },
}) do
  local kind, near, far, options, back = table.unpack(row, 1, 5)
  test.case(("%s carries packets over %s"):format(kind, far), function(t)
    t:requires(kind)
    local a, b = pair(t)
    local function tunnel(ns, from, to, number)
      local all = { name = "tun7", netns = ns, ["local"] = from, remote = to }
      all.address = { ("10.7.0.%d/24"):format(number), ("fd07::%d/64"):format(number) }
      for word, value in pairs(options) do
        all[word] = value
      end
      return link[kind](all)
    end
    local here = tunnel(a, near, far, 1)
    tunnel(b, near and far, back or near, 2)
    for _, ip in ipairs({ "10.7.0.2", "fd07::2" }) do
      local carried = not (kind == "ipip" and ip:find(":") or kind == "sit" and not ip:find(":"))
      if carried then
        t:eventually(function()
          return probe.ping(a, ip, { count = 1, timeout = 0.3 }).received == 1
        end)
      end
    end
    t:ok(here:stats().tx.packets > 0)
  end)
end

test.case("up, down, set", function(t)
  local _, _, v = pair(t)
  v:down()
  t:equal(v:info().up, false)
  v:up()
  t:equal(v:info().up, true)
  v:set({ mtu = 1300, mac = "02:00:00:00:00:09", alias = "x", txqueuelen = 9, group = 5, promisc = true })
  local i = v:info()
  t:equal({ i.mtu, i.mac, i.alias, i.txqueuelen, i.group }, { 1300, "02:00:00:00:00:09", "x", 9, 5 })
  t:ok(i.flags & 0x100 ~= 0)
  v:set({ alias = "", up = false, promisc = false })
  t:equal({ v:info().alias, v:info().up }, { nil, false })
end)

test.case("addresses of both families", function(t)
  local _, _, v = pair(t)
  for _, case in ipairs({ { "10.1.0.1/16", "10.1.0.1/16" }, { "10.2.0.1", "10.2.0.1/32" },
    { "fd01::1/48", "fd01::1/48" }, { "fd02::1", "fd02::1/128" } }) do
    v:add_address(case[1])
    t:equal(has_address(v, case[2]).scope, "global", case[1])
    t:raises(function()
      v:add_address(case[1])
    end, "EEXIST")
    v:delete_address(case[1])
    t:equal(has_address(v, case[2]), nil)
    t:raises(function()
      v:delete_address(case[1])
    end, "EADDRNOTAVAIL")
  end
end)

test.case("stats count real packets", function(t)
  local a, _, v, w = pair(t)
  for _, ip in ipairs({ "10.0.0.2", "fd00::2" }) do
    t:equal(probe.ping(a, ip, { count = 1, timeout = 3 }).received, 1)
    local before, there = v:stats(), w:stats()
    t:equal(probe.ping(a, ip, { count = 10, interval = 0.01, size = 500, timeout = 3 }).received, 10)
    local after, now = v:stats(), w:stats()
    for side, stats in pairs({ tx = after.tx.packets - before.tx.packets,
      rx = after.rx.packets - before.rx.packets, there = now.rx.packets - there.rx.packets }) do
      t:ok(stats >= 10 and stats < 20, side .. " " .. stats)
    end
    t:ok(after.tx.bytes - before.tx.bytes >= 5000)
  end
end)

test.case("rename and move keep the handle", function(t)
  local a, b, v, w = pair(t)
  local c = t:netns("c")
  -- Links that are up can be renamed since Linux 6.2.
  if not pcall(v.rename, v, "new0") then
    v:down()
    v:rename("new0")
  end
  t:equal({ v.name, a:link("new0") }, { "new0", v })
  t:raises(function()
    a:link("v0")
  end, "ENODEV")
  v:move(c)
  t:equal({ v.netns, v.name, c:link("new0") }, { c, "new0", v })
  t:equal(#a:links(), 1)
  t:equal(v:info().up, false)
  t:equal(w:peer(), v)
  v:move(b.name)
  t:equal(v.netns, b)
  t:raises(function()
    v:rename("w0")
  end, "EEXIST")
  t:equal(v.name, "new0")
end)

test.case("delete takes the other end; both handles say so", function(t)
  local a, b, v, w = pair(t)
  v:delete()
  for _, l in ipairs({ v, w }) do
    local error = t:raises(function()
      l:info()
    end, "ENODEV")
    t:ok(tostring(error):find(l.name, 1, true))
  end
  t:equal({ #a:links(), #b:links() }, { 1, 1 })
  -- Its name is free again, and the new one is another object.
  local again = link.veth({ name = "v0", netns = a, peer = { name = "w0", netns = b } })
  t:ok(again ~= v)
end)

test.case("names and options that are refused, before anything is made", function(t)
  local ns, other = t:netns("bad"), t:netns("other")
  local there = link.veth({ name = "v0", netns = other, peer = { name = "v1", netns = other } })
  for _, case in ipairs({
    { "EINVAL", "name is missing", {} },
    { "EINVAL", "at most 15 bytes", { name = "sixteen-letters!" } },
    { "EINVAL", "cannot contain", { name = "a/b" } },
    { "EINVAL", "cannot contain", { name = "a b" } },
    { "EINVAL", "name must be a string", { name = 7 } },
    { "EINVAL", 'did you mean "mtu"', { name = "x", mtv = 1 } },
    { "EINVAL", "mtu must be an integer", { name = "x", mtu = "big" } },
    { "EINVAL", "mac", { name = "x", mac = "02:00" } },
    { "EINVAL", "is not an address", { name = "x", address = "10.0.0/24" } },
    { "EINVAL", "prefix length", { name = "x", address = "10.0.0.1/33" } },
    { "EINVAL", "prefix length", { name = "x", address = { "fd00::1/64", "fd00::1/129" } } },
    { "EINVAL", "is in netns", { name = "x", master = there } },
    { "ENODEV", "no link of that name", { name = "x", master = "nothing" } },
    { "EINVAL", "at most 15 bytes", { name = "x", peer = { name = "sixteen-letters!" } } },
    { "EINVAL", 'did you mean "address"', { name = "x", peer = { adress = "10.0.0.1/24" } } },
    { "ENOENT", "no namespace", { name = "x", peer = { netns = "cnf-no-such" } } },
    { "EINVAL", "", { name = "x", mtu = 10 } },
  }) do
    local code, text, options = table.unpack(case)
    options.netns = ns
    options.peer = options.peer or { name = "y", netns = ns }
    refused(t, code, text, link.veth, options)
    t:equal(#ns:links(), 1, "nothing is left")
  end
end)

test.case("duplicate names: EEXIST with the place", function(t)
  local a, b = pair(t)
  for _, case in ipairs({
    { { name = "v0", netns = a, peer = { name = "z", netns = b } }, a.name },
    { { name = "z", netns = a, peer = { name = "w0", netns = b } }, b.name },
  }) do
    local error = t:raises(function()
      link.veth(case[1])
    end, "EEXIST")
    t:ok(tostring(error):find(case[2], 1, true), tostring(error))
  end
  t:raises(function()
    link.veth({ name = "same", netns = a, peer = { name = "same", netns = a } })
  end, "EEXIST")
end)

test.case("a kind that the kernel lacks is named, with what would bring it", function(t)
  for _, kind in ipairs({ "dummy", "vrf", "wireguard" }) do
    if not cnf.probe_feature(kind) then
      local error = t:raises(function()
        link[kind]({ name = "x", netns = t:netns("none"), table = kind == "vrf" and 1 or nil })
      end, "EOPNOTSUPP")
      t:ok(tostring(error):find("CONFIG_", 1, true), tostring(error))
    end
  end
end)

--- What is tried, with what the error says.
local REFUSED = {
  { "veth", { mtu = 70000 }, "EINVAL", "mtu 70000 is out of its range: 68 to 65535 bytes" },
  { "veth", { peer = { name = "b", mtu = 10 } }, "EINVAL", "link.veth(b): mtu 10 is out of its range" },
  { "bridge", { mtu = 70000 }, "EINVAL", "mtu 70000 is out of its range: 68 to 65535 bytes" },
  { "tun", { mode = "tap", mtu = 70000 }, "EINVAL", "mtu 70000 is out of its range: 68 to 655" },
  { "veth", { mac = "01:00:00:00:00:01" }, "EADDRNOTAVAIL", "mac 01:00:00:00:00:01 is a multicast address" },
  { "veth", { peer = { name = "b", mac = "ff:ff:ff:ff:ff:ff" } }, "EADDRNOTAVAIL", "link.veth(b): mac" },
  { "bridge", { mac = "00:00:00:00:00:00" }, "EADDRNOTAVAIL", "mac 00:00:00:00:00:00 is no address" },
  { "veth", { peer = { name = "a" } }, "EEXIST", "both ends are to have that name" },
  { "macvlan", { link = "port" }, "EBUSY", "what port receives is br's already: port is a port of that bridge" },
  { "macvlan", { link = "lo" }, "EINVAL", "cannot stand on the loopback" },
  { "bridge", { ports = "under" }, "EBUSY", "what under receives is above's already: that macvlan stands on it" },
  { "bridge", { ports = "lo" }, "EINVAL", "lo is the loopback" },
  { "bridge", { ports = "nowhere" }, "ENODEV", "there is no link of that name" },
  { "vxlan", { id = 1 << 25 }, "ERANGE", "out of range: VXLAN ID must be lower than 16777216" },
  { "vxlan", { id = 1, group = "10.1.1.1" }, "EINVAL", "group 10.1.1.1 is not a multicast address" },
  { "vxlan", { id = 1, remote = "ff05::1" }, "EINVAL", "remote ff05::1 is a multicast address" },
}

test.case("refused values and places are told with their reason", function(t)
  local ns = t:netns("refused")
  link.veth({ name = "port", netns = ns, peer = { name = "under", netns = ns } })
  link.bridge({ name = "br", netns = ns, ports = { "port" } })
  link.macvlan({ name = "above", netns = ns, link = "under" })
  local before = #ns:links()
  for _, row in ipairs(REFUSED) do
    local kind, options, code, text = table.unpack(row)
    options.name, options.netns = "a", ns
    if options.peer then
      options.peer.netns = ns
    end
    local e = t:raises(function()
      link[kind](options)
    end)
    t:equal(e.code, code, tostring(e))
    t:ok(tostring(e):find(text, 1, true), tostring(e))
    t:equal(#ns:links(), before, "nothing is left: " .. text)
  end
  local port = ns:link("port")
  local function refused(change, text)
    local e = t:raises(function()
      port:set(change)
    end)
    t:ok(tostring(e):find(text, 1, true), tostring(e))
  end
  refused({ mtu = 10 }, "link:set(port): mtu 10 is out of its range: 68 to 65535 bytes (EINVAL)")
  refused({ master = "under" }, "link:set(port): operation not supported (EOPNOTSUPP)")
  refused({ mac = "03:00:00:00:00:01" }, "mac 03:00:00:00:00:01 is a multicast address (EADDRNOTAVAIL)")
end)
