--- Programs on netkit: each side runs when its end sends, attached through the primary end.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local bpf, link, netkit, probe, test = cnf.bpf, cnf.link, cnf.netkit, cnf.probe, cnf.test
local hooks = require("hooks")

local counted = hooks.counted([[
/* The device that a program sees: the one that receives. */
MAP(devices, ARRAY, 8, __u32, __u32);
static __always_inline int seen(struct __sk_buff *skb, __u32 number, int result) {
  __u32 *device = bpf_map_lookup_elem(&devices, &number);
  if (device) *device = skb->ifindex;
  return ran(number, result);
}
SEC("netkit/primary") int one(struct __sk_buff *skb) { return seen(skb, 1, -1); }
SEC("netkit/peer") int two(struct __sk_buff *skb) { return seen(skb, 2, -1); }
SEC("tc") int three(struct __sk_buff *skb) { return seen(skb, 3, -1); }
SEC("tc") int four(struct __sk_buff *skb) { return seen(skb, 4, -1); }
SEC("tc") int drop(struct __sk_buff *skb) { return seen(skb, 5, 2); }
SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }
]])

local function object()
  local o = counted()
  o.maps.devices:clear()
  return o
end

local function pair(t, mode)
  local a, b = t:netns("a"), t:netns("b")
  local primary, peer = netkit.pair({
    name = "nk0",
    mode = mode,
    netns = a,
    address = { "10.0.0.1/24", "fd00::1/64" },
    peer = { name = "nk1", netns = b, address = { "10.0.0.2/24", "fd00::2/64" } },
  })
  return a, b, primary, peer
end

for _, mode in ipairs({ "l2", "l3" }) do
  test.case("each side meets its own programs, " .. mode, function(t)
    t:requires("netkit")
    local a, _, primary, peer = pair(t, mode)
    local o = object()
    local p, hits = o.programs, o.maps.hits
    netkit.attach(primary, "primary", p.one)
    netkit.attach(primary, "peer", p.two)
    t:equal(hooks.names(netkit.query(primary, "primary")), { "one" })
    t:equal(hooks.names(netkit.query(primary, "peer")), { "two" })
    for _, address in ipairs({ "10.0.0.2", "fd00::2" }) do
      t:equal(probe.ping(a, address, { count = 2, interval = 0.01 }).received, 2)
    end
    t:ok(hits:get(1) >= 4, "requests met the primary's program")
    t:ok(hits:get(2) >= 4, "replies met the peer's program")
    t:equal(o.maps.devices:get(1), peer.index, "a program sees the end that receives")
    t:equal(o.maps.devices:get(2), primary.index)
  end)

  test.case("either side can stop what its end sends, " .. mode, function(t)
    t:requires("netkit")
    local a, b, primary = pair(t, mode)
    local p = object().programs
    for _, side in ipairs({ "primary", "peer" }) do
      local attachment = netkit.attach(primary, side, p.drop)
      local lost = probe.ping(a, "10.0.0.2", { count = 2, interval = 0.01, timeout = 0.2 })
      t:equal(lost.received, 0, side)
      attachment:detach()
      t:equal(probe.ping(b, "10.0.0.1", { count = 2, interval = 0.01 }).received, 2)
    end
  end)
end

test.case("order, revision, slots and replacement are as on tcx", function(t)
  t:requires("netkit")
  local a, _, primary = pair(t, "l3")
  local o = object()
  local p = o.programs
  local before = netkit.query(primary, "primary").revision
  local two = netkit.attach(primary, "primary", p.two, { expected_revision = before })
  t:raises(function()
    netkit.attach(primary, "primary", p.one, { expected_revision = before })
  end, "ESTALE")
  netkit.attach(primary, "primary", p.one, { first = true })
  netkit.attach(primary, "primary", p.four, { last = true })
  netkit.attach(primary, "primary", p.three, { after = two })
  t:equal(hooks.names(netkit.query(primary, "primary")), { "one", "two", "three", "four" })
  t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
  local turns = o.maps.turns
  for number = 1, 3 do
    t:ok(turns:get(number) < turns:get(number + 1))
  end
  t:raises(function()
    netkit.attach(primary, "primary", p.one, { slot = "again" })
  end, "EEXIST")
  t:raises(function()
    netkit.attach(primary, "primary", p.drop, { slot = "one" })
  end, 'slot "one" is taken')
  t:equal(two:info().side, "primary")
  two:replace(p.drop)
  t:equal(hooks.names(netkit.query(primary, "primary")), { "one", "drop", "three", "four" })
  t:equal(probe.ping(a, "10.0.0.2", { count = 1, timeout = 0.2 }).received, 0)
  two:detach()
  t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
end)

test.case("thirty replacements lose no packet", function(t)
  t:requires("netkit")
  local a, _, primary = pair(t, "l2")
  local o = object()
  local p = o.programs
  local attachment = netkit.attach(primary, "peer", p.one)
  probe.ping(a, "10.0.0.2", { count = 1 })
  hooks.take_turns(t, a, attachment, { p.one, p.two }, { rounds = 30, pause = 0.02, count = 100, interval = 0.01 })
  t:ok(o.maps.hits:get(1) > 0 and o.maps.hits:get(2) > 0)
end)

test.case("only through the primary end, and only on netkit", function(t)
  t:requires("netkit")
  local a, _, primary, peer = pair(t, "l3")
  local p = object().programs
  for _, side in ipairs({ "primary", "peer" }) do
    t:raises(function()
      netkit.attach(peer, side, p.one)
    end, "EACCES")
    t:raises(function()
      netkit.query(peer, side)
    end, "EACCES")
  end
  local veth = link.veth({ name = "veth0", netns = a, peer = { name = "veth1", netns = a } })
  local wrong = t:raises(function()
    netkit.attach(veth, "primary", p.one)
  end, "ENXIO")
  t:equal(wrong.message, "veth0 is not a netkit device")
  t:raises(function()
    netkit.query(veth, "primary")
  end, "ENXIO")
  t:raises(function()
    netkit.attach(primary, "primary", p.frames)
  end, "this hook takes tc")
  t:raises(function()
    netkit.attach(primary, "ingress", p.one)
  end, 'it is "primary" or "peer"' and "EINVAL")
  -- tcx and generic XDP work on netkit too.
  cnf.tcx.attach(peer, "ingress", p.three)
  t:equal(cnf.xdp.attach(peer, p.frames):info().mode, "generic")
  t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
  primary:delete()
  t:raises(function()
    netkit.attach(primary, "primary", p.one)
  end, "ENODEV")
end)

test.case("a kernel without netkit says so", function(t)
  if bpf.has("netkit").available then
    t:skip("this kernel has netkit")
  end
  local a = t:netns("a")
  local veth = link.veth({ name = "veth0", netns = a, peer = { name = "veth1", netns = a } })
  local p = object().programs
  local refused = t:raises(function()
    netkit.attach(veth, "primary", p.one)
  end, "EOPNOTSUPP")
  t:ok(refused.message:find("netkit", 1, true), refused.message)
  t:equal(refused.hint, "use a veth pair and tcx there")
end)
