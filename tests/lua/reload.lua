--- Reloads on every kernel: netkit pairs and programs on them, veth and clsact, under traffic. The rest of what a reload
--- is held to is in tests/reload*.rs.

local cnf = require("cnf")
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path
local instance = require("instance")
local test, netns, probe, task = cnf.test, cnf.netns, cnf.probe, cnf.task

--- A path of two ends, with a program on the near one that a reload swaps.
local TEXT = [=[
local a, b = cnf.netns.new("PREFIXa"), cnf.netns.new("PREFIXb")
local near, far = PAIR
a:route { dst = "10.91.0.0/16", via = "10.90.0.2" }
local o = cnf.bpf.compile { source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC("tc") int count(struct __sk_buff *skb) {
  __u32 zero = 0;
  __u64 *n = bpf_map_lookup_elem(&seen, &zero);
  if (n) __sync_fetch_and_add(n, STEP);
  return -1;
}
char LICENSE[] SEC("license") = "GPL";
]] }
ATTACH
print("seen", o.maps.seen:get(0))
]=]

local function text(prefix, values)
  local made = TEXT
  for _, word in ipairs({ "PAIR", "ATTACH", "STEP" }) do
    made = made:gsub(word, function()
      return values[word]
    end)
  end
  return (made:gsub("PREFIX", prefix))
end

--- Pings from one end to the other while `change` runs: none is lost.
local function under_ping(t, prefix, change)
  local running = true
  local pings = task.spawn(function()
    local sent, received = 0, 0
    while running do
      local seen = probe.ping(netns.get(prefix .. "a"), "10.90.0.2", { count = 5, interval = 0.02, timeout = 5 })
      sent, received = sent + seen.sent, received + seen.received
    end
    return sent, received
  end)
  change()
  running = false
  local sent, received = pings:join()
  t:ok(sent > 0)
  t:equal(received, sent)
end

local function goes_on(t, pair, attach, shown)
  local prefix = t:netns("x").name .. "-"
  local function version(step, mtu)
    return text(prefix, { PAIR = pair:gsub("MTU", tostring(mtu)), ATTACH = attach, STEP = tostring(step) })
  end
  local one = instance(t, version(1, 1500))
  local a = netns.get(prefix .. "a")
  local index = a:link("near").index
  under_ping(t, prefix, function()
    local code, said = one.reload(version(1, 1500))
    t:equal(code, 0, said)
    t:ok(said:find("reload 2: kept %d+ in"), said)
    for generation = 3, 6 do
      local step = generation % 2 + 1
      code, said = one.reload(version(step, 1500 - generation % 2 * 100))
      t:equal(code, 0, said)
      t:ok(said:find(("reload %d: "):format(generation), 1, true), said)
      t:ok(said:find("~ link near", 1, true), said)
      t:ok(said:find("~ attachment count on " .. shown, 1, true), said)
    end
    code, said = one.reload(version(1, 1500) .. " error 'no'")
    t:equal(code, 1, said)
    t:ok(said:find("no", 1, true), said)
  end)
  t:equal(a:link("near").index, index, "the same link")
  t:equal(one.run("down", "one").code, 0)
  t:ok(not netns.exists(prefix .. "a"))
end

local VETH = [[cnf.link.veth { name = "near", netns = a, address = "10.90.0.1/24", mtu = MTU,
  peer = { name = "far", netns = b, address = "10.90.0.2/24" } }]]
local NETKIT = [[cnf.netkit.pair { name = "near", netns = a, address = "10.90.0.1/24", mtu = MTU, mode = "l3",
  peer = { name = "far", netns = b, address = "10.90.0.2/24" } }]]

test.case("a netkit pair and a program on its primary end go on", function(t)
  t:requires("netkit")
  goes_on(t, NETKIT, [[cnf.netkit.attach(near, "primary", o.programs.count)]], "netkit primary of near")
end)

test.case("a netkit pair and a program on its peer end go on", function(t)
  t:requires("netkit")
  goes_on(t, NETKIT, [[cnf.netkit.attach(near, "peer", o.programs.count)]], "netkit peer of near")
end)

test.case("a veth pair and a program on tcx go on", function(t)
  t:requires("tcx")
  goes_on(t, VETH, [[cnf.tcx.attach(near, "egress", o.programs.count)]], "tcx egress of near")
end)

test.case("a veth pair and a clsact filter go on", function(t)
  t:requires("clsact")
  goes_on(t, VETH, [[cnf.tc.attach(near, "egress", o.programs.count)]], "tc egress of near")
end)

test.case("a veth pair and a program on xdp go on", function(t)
  local xdp = [[cnf.xdp.attach(near, cnf.bpf.compile { source = [=[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int count(struct xdp_md *ctx) { return XDP_PASS + 0 * STEP; }
char LICENSE[] SEC("license") = "GPL";
int version = STEP;
]=] }.programs.count)]]
  goes_on(t, VETH, xdp, "xdp of near")
end)
