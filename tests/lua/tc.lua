--- Legacy clsact: the order words as priorities, filters replaced in place, and the qdisc left as it was found.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local netns, probe, tc, test = cnf.netns, cnf.probe, cnf.tc, cnf.test
local hooks, pair = require("hooks"), require("pair")

local object = hooks.counted([[
SEC("tc") int one(struct __sk_buff *skb) { return ran(1, -1); }
SEC("tc") int two(struct __sk_buff *skb) { return ran(2, -1); }
SEC("tc") int three(struct __sk_buff *skb) { return ran(3, -1); }
SEC("tc") int pass(struct __sk_buff *skb) { return ran(4, 0); }
SEC("tc") int drop(struct __sk_buff *skb) { return ran(5, 2); }
SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }
]])

for _, direction in ipairs({ "ingress", "egress" }) do
  test.case("order words become priorities, " .. direction, function(t)
    t:requires("clsact")
    local a, _, near = pair(t)
    local o = object()
    local p = o.programs
    local two = tc.attach(near, direction, p.two)
    tc.attach(near, direction, p.one, { first = true })
    tc.attach(near, direction, p.pass, { last = true })
    tc.attach(near, direction, p.three, { before = p.pass })
    t:equal(hooks.names(tc.query(near, direction)), { "one", "two", "three", "pass" })
    t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
    t:equal(hooks.met(o.maps), { 1, 2, 3, 4 })
    two:detach()
    tc.attach(near, direction, p.two, { after = p.three.id })
    o.maps.turns:clear()
    t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
    t:equal(hooks.met(o.maps), { 1, 3, 2, 4 })
    tc.attach(near, direction, p.drop, { after = p.one })
    t:equal(probe.ping(a, "10.0.0.2", { count = 1, timeout = 0.1 }).received, 0)
  end)
end

test.case("a priority is taken as given", function(t)
  t:requires("clsact")
  local _, _, near = pair(t)
  local p = object().programs
  local ten = tc.attach(near, "ingress", p.one, { priority = 10 })
  tc.attach(near, "ingress", p.two, { priority = 5, handle = 7 })
  t:equal(hooks.names(tc.query(near, "ingress")), { "two", "one" })
  local info = ten:info()
  t:equal({ info.priority, info.handle, info.hook, info.side }, { 10, 1, "tc", "ingress" })
  t:equal(info.link_id, nil)
  local taken = t:raises(function()
    tc.attach(near, "ingress", p.three, { priority = 10 })
  end, "EEXIST")
  t:equal(taken.message, "priority 10 handle 1 is taken")
  tc.attach(near, "ingress", p.three, { priority = 11 })
  t:raises(function()
    tc.attach(near, "ingress", p.pass, { after = ten })
  end, "ERANGE")
  t:raises(function()
    tc.attach(near, "ingress", p.pass, { priority = 12, first = true })
  end, "say different places")
  t:raises(function()
    tc.attach(near, "ingress", p.pass, { priority = 65536 })
  end, "EINVAL")
  t:raises(function()
    tc.attach(near, "ingress", p.pass, { before = p.drop })
  end, "ENOENT")
  t:raises(function()
    tc.attach(near, "ingress", p.one)
  end, 'slot "one" is taken')
  tc.attach(near, "ingress", p.one, { slot = "again" })
  t:raises(function()
    tc.attach(near, "ingress", p.frames)
  end, "this hook takes tc")
end)

test.case("fifty replacements lose no packet", function(t)
  t:requires("clsact")
  local a, _, near = pair(t)
  local o = object()
  local p = o.programs
  local attachment = tc.attach(near, "egress", p.one)
  probe.ping(a, "10.0.0.2", { count = 1 })
  hooks.take_turns(t, a, attachment, { p.one, p.two }, { rounds = 50, pause = 0.015, count = 150, interval = 0.005 })
  t:equal(hooks.names(tc.query(near, "egress")), { "one" })
  t:ok(o.maps.hits:get(1) > 0 and o.maps.hits:get(2) > 0)
  t:ok(o.maps.hits:get(1) + o.maps.hits:get(2) >= 150)
end)

test.case("the qdisc goes with the last filter, if it came with the first", function(t)
  t:requires("clsact")
  local a, _, near = pair(t)
  local p = object().programs
  local function qdiscs()
    return a:exec("tc qdisc show dev v0").stdout:find("clsact", 1, true) ~= nil
  end
  local one = tc.attach(near, "ingress", p.one)
  local two = tc.attach(near, "egress", p.two)
  t:equal(qdiscs(), true)
  one:detach()
  t:equal(qdiscs(), true)
  two:detach()
  t:equal(qdiscs(), false)
  a:exec("tc qdisc add dev v0 clsact")
  tc.attach(near, "ingress", p.one):detach()
  t:equal(qdiscs(), true, "somebody else's stays")
  t:equal(tc.query(near, "ingress"), { revision = 0, programs = {} })
end)

test.case("filters of others are seen, and left", function(t)
  t:requires("clsact")
  local a, _, near = pair(t)
  local p = object().programs
  local one = tc.attach(near, "ingress", p.one)
  local shown = a:exec("tc filter show dev v0 ingress")
  t:ok(shown.stdout:find("direct-action", 1, true), shown.stdout .. shown.stderr)
  t:ok(shown.stdout:find("one", 1, true), shown.stdout)
  -- Somebody else takes ours away.
  a:exec(("tc filter del dev v0 ingress pref %d"):format(one:info().priority))
  t:raises(function()
    one:replace(p.two)
  end, "the filter is gone")
  one:detach()
  near:delete()
  t:raises(function()
    tc.attach(near, "ingress", p.one)
  end, "ENODEV")
  t:ok(netns.host())
end)
