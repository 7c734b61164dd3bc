--- The policy router on devices that are no Ethernet, and on netkit: as what packets come from and where they go.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test, probe, link, netkit = cnf.test, cnf.probe, cnf.link, cnf.netkit

local families = {
  { family = 4, from = "10.0.0.2", to = "198.51.100.1", net = "10.0.0.0/24" },
  { family = 6, from = "fd00::2", to = "2001:db8:99::1", net = "fd00::/64" },
}

--- The lab with the far addresses and the way back by the last way.
local function lab_with_far(t)
  local net = lab.new(t)
  net:add_far_addresses()
  return net
end

test.case("from a tun device to Ethernet", function(t)
  local net = lab.new(t)
  local tun = link.tun({ name = "tun0", netns = net.ns, address = { "10.5.0.1/24", "fd05::1/64" } })
  local r = net:router({ attach = { { tun, "egress" } } })
  for _, row in ipairs(families) do
    r:set({ net:by(1, { from = row.net }) })
    local way, note = net:way(r, { from = row.from, to = row.to }, { link = tun, headerless = true })
    t:equal({ way, note.ttl, note.length }, { "h1", 64, (row.family == 4 and 20 or 40) + 40 })
    t:equal(r:stats()[1].bytes, note.length, "bytes are counted from the IP header on")
  end
end)

--- Tunnels between the router and the sink over a link of their own, by the families that they carry.
local tunnels = {
  { kind = "ipip", carries = { 4 }, outer = 4 },
  { kind = "sit", carries = { 6 }, outer = 4 },
  { kind = "gre", carries = { 4, 6 }, outer = 4 },
  { kind = "ip6tnl", carries = { 4, 6 }, outer = 6, options = { mode = "any", encap_limit = 0 } },
  { kind = "ip6gre", carries = { 4, 6 }, outer = 6, options = { encap_limit = 0 } },
}

for _, tunnel in ipairs(tunnels) do
  test.case("to and from a header-less device: " .. tunnel.kind, function(t)
    t:requires(tunnel.kind)
    local net = lab_with_far(t)
    -- Not one of the ways: their program would find our number at the end of the tunnel's packets.
    link.veth({
      name = "under", netns = net.ns, address = { "10.20.0.1/24", "fd20::1/64" },
      peer = { name = "under", netns = net.sink, address = { "10.20.0.2/24", "fd20::2/64" } },
    })
    local ends = tunnel.outer == 4 and { "10.20.0.1", "10.20.0.2" } or { "fd20::1", "fd20::2" }
    local function make(ns, here, there, address)
      local options = { name = "tunnel", netns = ns, ["local"] = here, remote = there, address = {} }
      for _, family in ipairs(tunnel.carries) do
        options.address[#options.address + 1] = address[family]
      end
      for word, value in pairs(tunnel.options or {}) do
        options[word] = value
      end
      return link[tunnel.kind](options)
    end
    local near = make(net.ns, ends[1], ends[2], { [4] = "10.6.0.1/30", [6] = "fd06::1/64" })
    local far = make(net.sink, ends[2], ends[1], { [4] = "10.6.0.2/30", [6] = "fd06::2/64" })
    net:watch(far, "tunnel", true)
    local into, out = net:router({ name = "into" }), net:router({ name = "out", attach = { { near, "egress" } } })
    for _, row in ipairs(families) do
      if row.family == 4 and tunnel.carries[1] == 4 or row.family == 6 and tunnel.carries[#tunnel.carries] == 6 then
        -- Into the tunnel, by neighbour and without one.
        for _, hop in ipairs({ {}, { via = row.family == 4 and "10.6.0.2" or "fd06::2" } }) do
          into:set({ { from = row.net, dev = near, via = hop.via } })
          out:set({})
          local way, note = net:way(into, { from = row.from, to = row.to })
          t:equal({ way, note.ttl }, { "tunnel", 63 })
          t:equal(probe.ping(net.client, row.to, { count = 2, interval = "5ms" }).received, 2)
        end
        -- What goes into the tunnel is taken out of it again.
        out:set({ net:by(1, { from = row.net }) })
        local way, note = net:way(into, { from = row.from, to = row.to })
        t:equal({ way, note.ttl, note.times }, { "h1", 63, 1 })
        t:equal(out:stats()[1].packets, 1)
        -- What comes out of the tunnel at the other end.
        into:set({ { from = row.net, dev = near } })
        out:set({})
        local last = net:router({ name = "last", attach = { { far, "ingress" } } })
        last:set({ { from = row.net, action = "drop" } })
        local elsewhere = row.family == 4 and "203.0.113.9" or "2001:db8:aa::9"
        probe.ping(net.client, elsewhere, { count = 2, interval = "5ms", timeout = "50ms" })
        t:eventually(function()
          return last:stats()[1].packets == 2
        end)
        t:equal(last:stats()[1].bytes, 2 * ((row.family == 4 and 20 or 40) + 8 + 56))
        last:detach()
      end
    end
  end)
end

for _, mode in ipairs({ "l3", "l2" }) do
  test.case("netkit's hooks, mode " .. mode, function(t)
    t:requires("netkit")
    local net = lab_with_far(t)
    local pod = t:netns("lab-p")
    -- The primary end is the router's: what the peer sends is routed there.
    local primary, peer = netkit.pair({
      name = "nk0", netns = net.ns, mode = mode, address = { "10.7.0.1/24", "fd07::1/64" },
      peer = { name = "eth0", netns = pod, address = { "10.7.0.2/24", "fd07::2/64" } },
    })
    pod:route({ dst = "default", via = "10.7.0.1" })
    pod:route({ dst = "default", via = "fd07::1" })
    net.sink:route({ dst = "10.7.0.0/24", via = "10.1.3.1" })
    net.sink:route({ dst = "fd07::/64", via = "fd01:3::1" })
    local r = net:router({ attach = { { primary, "peer" } } })
    for _, row in ipairs(families) do
      local from = row.family == 4 and "10.7.0.0/24" or "fd07::/64"
      r:set({ net:by(1, { from = from }) })
      local before = net.far.h1:stats().rx.packets
      local ping = probe.ping(pod, row.to, { count = 3, interval = "5ms" })
      t:equal({ ping.received, r:stats()[1].packets }, { 3, 3 }, "IPv" .. row.family)
      t:ok(net.far.h1:stats().rx.packets - before >= 3)
      -- TTL falls, as at ingress.
      ping = probe.ping(pod, row.to, { count = 1 })
      pod:exec({ "ping", row.family == 6 and "-6" or "-4", "-c1", "-W1", "-t1", row.to }, { check = false })
      t:ok(r:stats().total.expired.packets >= 1)
      -- Back into the pair: a target like any other.
      r:set({ { from = from, action = "drop" } })
      t:equal(probe.ping(pod, row.to, { count = 1, timeout = "100ms" }).received, 0)
      t:equal(probe.ping(pod, row.family == 4 and "10.7.0.1" or "fd07::1", { count = 1 }).received, 1, "the box itself")
    end
    r:detach()

    -- What the primary end sends is routed where the peer receives it.
    local inner = cnf.policy.router({ name = "inner", attach = { { primary, "primary" } } })
    local exit, last = link.veth({
      name = "exit", netns = pod, address = { "10.4.0.1/24", "fd04::1/64" },
      peer = { name = "exit", netns = net.sink, address = { "10.4.0.2/24", "fd04::2/64" } },
    })
    net:watch(last, "exit")
    net.ns:route({ dst = "100.64.0.0/10", via = "10.7.0.2", dev = primary })
    net.ns:route({ dst = "2001:db8:64::/48", via = "fd07::2", dev = primary })
    for _, row in ipairs({
      { "10.0.0.2", "100.64.0.1", "10.0.0.0/24", "10.4.0.2" },
      { "fd00::2", "2001:db8:64::1", "fd00::/64", "fd04::2" },
    }) do
      inner:set({ { from = row[3], via = row[4], dev = exit } })
      local way, note = net:way(nil, { from = row[1], to = row[2] })
      t:equal({ way, note.ttl, note.times }, { "exit", 62, 1 })
      t:equal(inner:stats()[1].packets, 1)
    end
    t:raises(function()
      inner:set({ net:by(1, { from = "10.0.0.0/8" }) })
    end, "EXDEV")
  end)

  test.case("netkit as a target, mode " .. mode, function(t)
    t:requires("netkit")
    local net = lab_with_far(t)
    local primary, peer = netkit.pair({
      name = "nk0", netns = net.ns, mode = mode, address = { "10.7.0.1/24", "fd07::1/64" },
      peer = { name = "nk0", netns = net.sink, address = { "10.7.0.2/24", "fd07::2/64" } },
    })
    net:watch(peer, "nk0")
    local r = net:router({ attach = { { net.link.inside, "ingress" }, { primary, "egress" } } })
    for _, row in ipairs(families) do
      r:set({ { from = row.net, via = row.family == 4 and "10.7.0.2" or "fd07::2", dev = primary } })
      local way, note = net:way(nil, { from = row.from, to = row.to })
      t:equal({ way, note.ttl, note.times }, { "nk0", 63, 1 })
    end
  end)
end

test.case("a VLAN device as a target, and its tag at the hook below", function(t)
  t:requires("vlan")
  local net = lab_with_far(t)
  local near = link.vlan({ name = "v7", netns = net.ns, link = net.link.h1, id = 7, address = { "10.3.0.1/24", "fd03::1/64" } })
  local far = link.vlan({ name = "v7", netns = net.sink, link = net.far.h1, id = 7, address = { "10.3.0.2/24", "fd03::2/64" } })
  t:ok(near and far)
  local r = net:router()
  local below = net:router({ name = "below", attach = { { net.link.h1, "egress" } } })
  for _, row in ipairs(families) do
    r:set({ { from = row.net, via = row.family == 4 and "10.3.0.2" or "fd03::2", dev = near } })
    local before = far:stats().rx.packets
    local ping = probe.ping(net.client, row.to, { count = 3, interval = "5ms" })
    t:equal(ping.received, 3)
    t:ok(far:stats().rx.packets - before >= 3)
    -- A tag that the kernel is to add is seen as one in the frame is.
    below:set({ net:by(2, { vlan = 7, family = row.family }) })
    ping = probe.ping(net.client, row.to, { count = 3, interval = "5ms" })
    t:equal({ ping.received, below:stats()[1].packets }, { 3, 3 })
    below:set({})
  end
end)
