--- Programs as data: test runs on built packets, global variables, tail calls, what the kernel and bpftool say of them.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local source = require("source")
local bpf, packet, test = cnf.bpf, cnf.packet, cnf.test

local HEADERS = [[
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
]]

local function compile(text, options)
  return source.compile(HEADERS .. text, options)
end

local FRAME = packet.build({
  ip = { src = "10.0.0.1", dst = "10.0.0.2" },
  udp = {},
  payload = ("x"):rep(20),
})

test.case("verdicts in words", function(t)
  local o = compile([[
SEC("tc") int at_tc(struct __sk_buff *skb) { return skb->mark; }
SEC("socket") int at_socket(struct __sk_buff *skb) { return 3; }
]])
  local words = {
    [0] = "pass",
    "reclassify",
    "drop",
    "pipe",
    "stolen",
    "queued",
    "repeat",
    "redirect",
    "trap",
  }
  for mark = 0, 8 do
    t:equal(o.programs.at_tc:test_run({
      packet = FRAME,
      ctx = { mark = mark },
    }).verdict, words[mark])
  end
  local next_one = o.programs.at_tc:test_run({ packet = FRAME, ctx = { mark = 0xffffffff } })
  t:equal({ next_one.retval, next_one.verdict }, { -1, "next" })
  t:equal(o.programs.at_tc:test_run({ packet = FRAME, ctx = { mark = 77 } }).verdict, nil)
  for result, word in pairs({ [0] = "aborted", "drop", "pass", "tx", "redirect" }) do
    local xdp = compile([[
const volatile int result = 0;
SEC("xdp") int at_xdp(struct xdp_md *ctx) { return result; }]], { globals = { result = result } })
    t:equal(xdp.programs.at_xdp:test_run({ packet = FRAME }).verdict, word)
  end
  t:equal(o.programs.at_socket:test_run({ packet = FRAME }).verdict, nil)
end)

test.case("a run shows the packet and the context as the program left them", function(t)
  local o = compile([[
SEC("tc") int change(struct __sk_buff *skb) {
  __u8 ttl = 9;
  skb->mark = skb->mark + 1;
  skb->priority = 6;
  skb->cb[2] = 42;
  bpf_skb_store_bytes(skb, ETH_HLEN + offsetof(struct iphdr, ttl), &ttl, 1, BPF_F_RECOMPUTE_CSUM);
  return TC_ACT_OK;
}
]])
  local run = o.programs.change:test_run({ packet = FRAME, ctx = { mark = 5 } })
  t:equal({ run.ctx.mark, run.ctx.priority, run.ctx.cb[3] }, { 6, 6, 42 })
  t:equal(packet.decode(run.packet).ip.ttl, 9)
  t:equal(packet.decode(run.packet).payload, ("x"):rep(20))
  t:equal(o.programs.change:test_run({ packet = FRAME }).ctx.mark, 1, "a context is there without being asked for")
end)

test.case("a context that cannot be", function(t)
  local o = compile('SEC("tc") int p(struct __sk_buff *skb) { return 0; }')
  t:raises(function()
    o.programs.p:test_run({ packet = FRAME, ctx = "too short" })
  end, "EINVAL")
  t:raises(function()
    o.programs.p:test_run({ packet = FRAME, ctx = 5 })
  end, "ctx must be a table")
end)

test.case("many runs are one result, and end when their time is up", function(t)
  local o = compile([[
__u64 runs;
SEC("tc") int p(struct __sk_buff *skb) { runs++; return skb->mark; }
]])
  local run = o.programs.p:test_run({ packet = FRAME, repeat_count = 250000, ctx = { mark = 3 } })
  t:equal({ o.globals.runs, run.retval, #run.packet }, { 250000, 3, #FRAME })
  t:equal(math.type(run.nanoseconds), "integer")
  local ns = t:netns("a")
  local near = cnf.link.veth({ name = "near", netns = ns, peer = { name = "far", netns = ns } })
  near:up()
  for _, ctx in ipairs({ {}, { ifindex = near } }) do
    local begun = cnf._test.now()
    t:raises(function()
      cnf.task.timeout(0.2, function()
        o.programs.p:test_run({ packet = FRAME, repeat_count = 2 ^ 32 - 1, ctx = ctx })
      end)
    end, "ETIMEDOUT")
    t:ok(cnf._test.now() - begun < 10)
  end
end)

test.case("a packet that is too long, or too short", function(t)
  local o = compile('SEC("tc") int p(struct __sk_buff *skb) { return 0; }')
  for _, row in ipairs({ { 100000, "100000 bytes is too long" }, { 13, "13 bytes is too short" } }) do
    t:raises(function()
      o.programs.p:test_run({ packet = ("x"):rep(row[1]) })
    end, row[2])
  end
end)

local GLOBALS = [[
struct point { __u32 x; __s16 y; __u8 z; };
enum mode { OFF, ON };
const volatile __u32 fixed = 7;
__u64 packets;
__u32 limit = 10;
__u16 port = 80;
__s8 small = -3;
char name[16] = "first";
enum mode mode = ON;
struct point point = { 1, -2, 3 };
__u32 list[4] = { 1, 2, 3, 4 };
static volatile __u32 hidden = 5;
SEC("tc") int count(struct __sk_buff *skb) {
  __sync_fetch_and_add(&packets, 1);
  if (mode == OFF)
    return fixed;
  return limit + port + small + point.x + list[2] + hidden;
}
]]

test.case("global variables are read and written while programs run", function(t)
  local o = compile(GLOBALS, { globals = { fixed = 8 } })
  local globals, count = o.globals, o.programs.count
  local function run()
    return count:test_run({ packet = FRAME }).retval
  end
  t:equal(run(), 10 + 80 - 3 + 1 + 3 + 5)
  t:equal({
    globals.fixed,
    globals.limit,
    globals.port,
    globals.small,
    globals.hidden,
  }, { 8, 10, 80, -3, 5 })
  t:equal({ globals.name, globals.mode, globals.packets }, { "first", "ON", 1 })
  t:equal({ globals.point, globals.list }, { { x = 1, y = -2, z = 3 }, { 1, 2, 3, 4 } })
  globals.limit, globals.port, globals.small, globals.hidden = 1000, 443, 5, 0
  globals.point = { x = 7 }
  globals.list = { 0, 0, 30, 0 }
  globals.name = "second"
  t:equal(run(), 1000 + 443 + 5 + 7 + 30)
  t:equal({
    globals.point,
    globals.name,
    globals.packets,
  }, { { x = 7, y = 0, z = 0 }, "second", 2 })
  globals.mode = "OFF"
  t:equal(run(), 8)
  globals.packets = 2 ^ 40 // 1
  run()
  t:equal(globals.packets, 2 ^ 40 + 1)
  local seen = {}
  for name, value in pairs(globals) do
    seen[name] = value
  end
  t:equal({ seen.fixed, seen.mode, seen.port }, { 8, "OFF", 443 })
end)

test.case("a write touches nothing beside it", function(t)
  local o = compile([[
__u8 before[3] = { 1, 2, 3 };
__u8 middle[5] = { 4, 4, 4, 4, 4 };
__u8 after[3] = { 5, 6, 7 };
SEC("tc") int p(struct __sk_buff *skb) { return before[skb->mark & 1] + middle[skb->mark & 1] + after[skb->mark & 1]; }
]])
  o.globals.middle = { 9, 8, 7, 6, 5 }
  t:equal({
    o.globals.before,
    o.globals.middle,
    o.globals.after,
  }, { { 1, 2, 3 }, { 9, 8, 7, 6, 5 }, { 5, 6, 7 } })
end)

test.case("what is no global, or no value of it", function(t)
  local o = compile(GLOBALS)
  local e = t:raises(function()
    return o.globals.limmit
  end, "ENOENT")
  t:equal(e.hint, 'did you mean "limit"?')
  e = t:raises(function()
    o.globals.fixed = 1
  end, "EPERM")
  t:ok(e.hint:find("globals", 1, true), e.hint)
  for _, wrong in ipairs({
    { "small", 128 },
    { "port", -1 },
    { "mode", "HALF" },
    { "point", { w = 1 } },
    { "limit", "x" },
  }) do
    local problem = t:raises(function()
      o.globals[wrong[1]] = wrong[2]
    end)
    t:ok(problem.code == "EINVAL" or problem.code == "ERANGE", tostring(problem))
    t:equal(problem.subject, wrong[1])
  end
  o:unload()
  t:raises(function()
    return o.globals
  end, "ENODEV")
end)

test.case("objects share global data as a map", function(t)
  local first = compile("__u32 shared = 3;\n" .. 'SEC("tc") int p(struct __sk_buff *skb) { return shared; }')
  local second = compile(
    "__u32 shared = 4;\n" .. 'SEC("tc") int p(struct __sk_buff *skb) { return shared + 100; }',
    { maps = { [".data"] = first.maps[".data"] } }
  )
  first.globals.shared = 20
  t:equal(second.programs.p:test_run({ packet = FRAME }).retval, 120)
end)

test.case("tail calls follow the table, and its changes", function(t)
  local o = compile([[
struct {
  __uint(type, BPF_MAP_TYPE_PROG_ARRAY);
  __uint(max_entries, 4);
  __type(key, __u32);
  __type(value, __u32);
} steps SEC(".maps");
SEC("tc") int start(struct __sk_buff *skb) {
  bpf_tail_call(skb, &steps, skb->mark);
  return 99;
}
SEC("tc") int one(struct __sk_buff *skb) { return 1; }
SEC("tc") int two(struct __sk_buff *skb) { return 2; }
]])
  local steps, start = o.maps.steps, o.programs.start
  local function from(mark)
    return start:test_run({ packet = FRAME, ctx = { mark = mark } }).retval
  end
  t:equal(from(0), 99)
  steps:set(0, o.programs.one)
  steps:set_many({ [1] = o.programs.two, [2] = o.programs.one })
  t:equal({ from(0), from(1), from(2), from(3) }, { 1, 2, 1, 99 })
  t:equal(steps:get(1), o.programs.two)
  steps:set(0, o.programs.two)
  steps:delete(1)
  t:equal({ from(0), from(1) }, { 2, 99 })
  t:raises(function()
    steps:set(0, o.maps.steps)
  end, "EINVAL")
end)

test.case("the kernel's account of a program", function(t)
  local o = compile(GLOBALS)
  local info = o.programs.count:info()
  t:ok(info.instructions > 10 and info.translated_size == info.instructions * 8, info.instructions)
  t:ok(info.verified_instructions > 0 and info.btf_id > 0 and info.load_time > 0)
  t:equal(info.jited_size > 0, bpf.has("jit").available)
  local mine = {}
  for _, map in ipairs(bpf.maps()) do
    mine[map.id] = map.name
  end
  for _, id in ipairs(info.map_ids) do
    t:ok(mine[id], id)
  end
end)

--- A bpf file system of the case's own; bpftool sees it too.
local function bpffs(t)
  local mount = os.tmpname() .. ".bpffs"
  os.execute("mkdir " .. mount)
  t:defer(function()
    os.execute("umount " .. mount .. "; rmdir " .. mount)
  end)
  if not os.execute("mount -t bpf bpffs " .. mount) then
    t:skip("no bpf file system can be mounted")
  end
  return mount
end

local function output(command)
  local pipe <close> = assert(io.popen(command .. " 2>&1"))
  return pipe:read("a")
end

test.case("bpftool opens what is pinned here", function(t)
  if output("command -v bpftool") == "" then
    t:skip("bpftool is not installed")
  end
  local mount = bpffs(t)
  local o = compile([[
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u64); }
  numbers SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) { __u32 key = 0; return bpf_map_lookup_elem(&numbers, &key) ? 0 : 1; }
]])
  o.maps.numbers:set(1, 12345)
  o.maps.numbers:pin(mount .. "/numbers")
  o.programs.p:pin(mount .. "/p")
  local shown = output(("bpftool prog show pinned %s/p"):format(mount))
  t:ok(shown:find(("^%d: sched_cls  name p  tag %s"):format(o.programs.p.id, o.programs.p.tag)), shown)
  t:ok(output(("bpftool map dump pinned %s/numbers"):format(mount)):find('"value": 12345', 1, true))
  output(("bpftool map update pinned %s/numbers key 0 0 0 0 value 7 0 0 0 0 0 0 0"):format(mount))
  t:equal(o.maps.numbers:get(0), 7)
end)
