--- Objects as real sources are written: CO-RE, globals, calls, several programs; and what is no object.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local bpf, link, netns, probe, test = cnf.bpf, cnf.link, cnf.netns, cnf.probe, cnf.test
local bpffs, bpftool, pair = require("bpffs"), require("bpftool"), require("pair")
local source = require("source")
local compile, whole = source.compile, source.whole

local FRAME = ("\0"):rep(64)

--- A file of its own, removed after the case.
local function temporary(t, contents)
  local path = os.tmpname()
  t:defer(function()
    os.remove(path)
  end)
  local file <close> = assert(io.open(path, "w"))
  file:write(contents or "")
  return path
end

--- Compiles as a person would, with clang itself; the path of the object.
local function object_file(t, source)
  local c, o = temporary(t, whole(source)), temporary(t)
  local host = netns.host()
  local machine = host:exec("uname -m").stdout:match("%S+")
  local done = host:exec({
    "clang",
    "-target",
    "bpf",
    "-O2",
    "-g",
    "-idirafter",
    "/usr/include/" .. machine .. "-linux-gnu",
    "-x",
    "c",
    "-c",
    c,
    "-o",
    o,
  }, { timeout = 300 })
  t:equal(done.code, 0)
  return o
end

local function contents(path)
  local file <close> = assert(io.open(path, "rb"))
  return file:read("a")
end

test.case("several programs in one section, with static functions between them", function(t)
  local o = compile([[
static __noinline int twice(int n) { return n * 2; }
static __noinline int thrice(int n) { return twice(n) + n; }
__noinline int global_function(int n) { return thrice(n) + 1; }
SEC("tc") int first(struct __sk_buff *skb) { return twice(skb->mark); }
SEC("tc") int second(struct __sk_buff *skb) { return thrice(skb->mark); }
SEC("tc") int third(struct __sk_buff *skb) { return global_function(skb->mark); }
SEC("xdp") int fourth(struct xdp_md *ctx) { return twice(ctx->data_end - ctx->data); }
]])
  local function run(name)
    return o.programs[name]:test_run({ packet = FRAME, ctx = { mark = 5 } }).retval
  end
  t:equal({ run("first"), run("second"), run("third") }, { 10, 15, 16 })
  t:equal(o.programs.fourth:test_run({ packet = FRAME }).retval, 128)
  local names = {}
  for name, program in pairs(o.programs) do
    t:equal(program.name, name)
    names[#names + 1] = name
  end
  table.sort(names)
  t:equal(names, { "first", "fourth", "second", "third" })
  t:equal(tostring(o), "Object(source, 4 programs, 0 maps)")
end)

test.case("CO-RE reads the running kernel's structs", function(t)
  t:requires("btf")
  local o = compile([[
#include <bpf/bpf_core_read.h>
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct task_struct { int tgid; };
struct task_struct___other { int no_such_field; };
struct no_such_struct { int field; };
struct sk_buff { unsigned int len; };
#pragma clang attribute pop
enum bpf_map_type___here { BPF_MAP_TYPE_HASH___here = 77 };

SEC("tc") int pid(struct __sk_buff *skb) {
  struct task_struct *task = (void *)bpf_get_current_task();
  return BPF_CORE_READ(task, tgid);
}
SEC("tcx/ingress") int fields(struct __sk_buff *skb) {
  int found = 0;
  if (bpf_core_field_exists(struct task_struct, tgid)) found |= 1;
  if (bpf_core_field_exists(struct task_struct___other, no_such_field)) found |= 2;
  if (bpf_core_type_exists(struct sk_buff)) found |= 4;
  if (bpf_core_type_exists(struct no_such_struct)) found |= 8;
  if (bpf_core_field_size(struct sk_buff, len) == 4) found |= 16;
  return found;
}
SEC("netkit/peer") int value(struct __sk_buff *skb) {
  return bpf_core_enum_value(enum bpf_map_type___here, BPF_MAP_TYPE_HASH___here);
}
]])
  t:equal(o.programs.pid:test_run({ packet = FRAME }).retval, tonumber(cnf._test.pid()))
  t:equal(o.programs.fields:test_run({ packet = FRAME }).retval, 1 + 4 + 16)
  t:equal(o.programs.value:test_run({ packet = FRAME }).retval, 1)
end)

test.case("globals are set before the program is verified, and read as maps", function(t)
  local source = [[
struct pair { __u16 left; __be32 right; };
const volatile __u32 limit = 5;
const volatile struct pair constants = { 1, 0 };
const volatile char greeting[8] = "hello";
__u64 start = 40;
__u32 list[4];
int seen;
static volatile const __u8 switched_off = 1;
SEC("tc") int run(struct __sk_buff *skb) {
  seen = limit + start + constants.left + list[2];
  if (limit == 0) return bpf_get_smp_processor_id() / limit;
  return seen;
}
]]
  local plain = compile(source)
  t:equal(plain.programs.run:test_run({ packet = FRAME }).retval, 46)
  t:equal(plain.maps[".bss"]:get(0).seen, 46)
  t:equal(plain.maps[".data"]:get(0).start, 40)
  t:equal(plain.maps[".rodata"]:get(0).greeting, "hello")
  plain.maps[".data"]:set(0, { start = 100 })
  t:equal(plain.programs.run:test_run({ packet = FRAME }).retval, 106)
  t:raises(function()
    plain.maps[".rodata"]:set(0, {})
  end, "frozen")

  local o = compile(source, {
    globals = {
      limit = 7,
      start = 1,
      list = { 0, 0, 100 },
      constants = { left = 1000, right = "10.0.0.1" },
      greeting = "bye",
    },
  })
  t:equal(o.programs.run:test_run({ packet = FRAME }).retval, 7 + 1 + 100 + 1000)
  t:equal(o.maps[".rodata"]:get(0).constants, { left = 1000, right = "10.0.0.1" })
  t:equal(o.maps[".rodata"]:get(0).greeting, "bye")

  local unknown = t:raises(function()
    compile(source, { globals = { limits = 1 } })
  end, "ENOENT")
  t:equal(unknown.hint, 'did you mean "limit"?')
  for name, wrong in pairs({ limit = -1, greeting = "far too long", constants = { left = 65536 } }) do
    local bad = t:raises(function()
      compile(source, { globals = { [name] = wrong } })
    end, "ERANGE")
    t:ok(bad.message:find(('global "%s": '):format(name), 1, true), bad.message)
  end
  t:raises(function()
    compile(source, { globals = { limit = "five" } })
  end, "takes an integer")
end)

local COUNTER = [[
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4);
  __type(key, __u32);
  __type(value, __u64);
} counts SEC(".maps");
SEC("tc") int count(struct __sk_buff *skb) {
  __u32 key = skb->mark;
  __u64 one = 1, *n = bpf_map_lookup_elem(&counts, &key);
  if (n) __sync_fetch_and_add(n, 1);
  else bpf_map_update_elem(&counts, &key, &one, BPF_ANY);
  return -1;
}
SEC("?tc") int optional(struct __sk_buff *skb) { return 7; }
]]

test.case("an object from a file, and from bytes", function(t)
  local path = object_file(t, COUNTER)
  for _, from in ipairs({ path, { bytes = contents(path) } }) do
    local o = bpf.load(from, { name = "counter" })
    t:equal(o.name, "counter")
    t:equal(o.programs.count:test_run({ packet = FRAME, ctx = { mark = 3 } }).retval, -1)
    t:equal(o.maps.counts:get(3), 1)
    t:equal(o.maps.counts:info().key_type, "__u32", "its BTF is kept")
  end
  t:equal(bpf.load(path).name, path)
end)

test.case("only the programs asked for", function(t)
  local path = object_file(t, COUNTER)
  t:raises(function()
    return bpf.load(path).programs.optional
  end, "ENOENT")
  local o = bpf.load(path, { programs = { "optional" } })
  t:equal(o.programs.optional:test_run({ packet = FRAME }).retval, 7)
  t:raises(function()
    return o.programs.count
  end, 'there is no program "count"')
  local wrong = t:raises(function()
    bpf.load(path, { programs = { "cuont" } })
  end, "ENOENT")
  t:equal(wrong.hint, 'did you mean "count"?')
end)

test.case("objects share maps, and make them larger", function(t)
  local path = object_file(t, COUNTER)
  local first = bpf.load(path, { max_entries = { counts = 1000 } })
  t:equal(first.maps.counts:info().max_entries, 1000)
  local second = bpf.load(path, { maps = { counts = first.maps.counts } })
  t:equal(second.maps.counts, first.maps.counts)
  for _, o in ipairs({ first, second, first }) do
    o.programs.count:test_run({ packet = FRAME, ctx = { mark = 9 } })
  end
  t:equal(second.maps.counts:get(9), 3)
  local other = compile([[
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 4);
  __type(key, __u32);
  __type(value, __u32);
} counts SEC(".maps");
SEC("tc") int look(struct __sk_buff *skb) {
  __u32 key = 0;
  return bpf_map_lookup_elem(&counts, &key) != 0;
}
]])
  local misfit = t:raises(function()
    bpf.load(path, { maps = { counts = other.maps.counts } })
  end, "EINVAL")
  t:ok(misfit.message:find("value size is 8 in the source and 4 in the map", 1, true), misfit.message)
  for _, options in ipairs({
    { maps = { count = first.maps.counts } },
    { max_entries = { count = 5 } },
  }) do
    local wrong = t:raises(function()
      bpf.load(path, options)
    end, "ENOENT")
    t:equal(wrong.hint, 'did you mean "counts"?')
  end
  for _, options in ipairs({
    { maps = { counts = 5 } },
    { max_entries = { counts = 0 } },
    { max_entries = { counts = 2 ^ 33 } },
    { globals = { [1] = 5 } },
    { programs = "count" },
    { global = {} },
  }) do
    t:raises(function()
      bpf.load(path, options)
    end, "EINVAL")
  end
end)

test.case("what is pinned stays", function(t)
  local path = object_file(t, COUNTER)
  local o = bpf.load(path)
  local mount = bpffs(t)
  local program, map = o.programs.count.id, o.maps.counts.id
  o.maps.counts:pin(mount .. "/map")
  o.programs.count:pin(mount .. "/program")
  t:raises(function()
    o.maps.counts:pin(mount .. "/map")
  end, "EEXIST")
  t:equal(bpf.pinned(mount .. "/map"), o.maps.counts)
  t:equal(bpf.pinned(mount .. "/program", "program"), o.programs.count)
  local e = t:raises(function()
    bpf.pinned(mount .. "/map", "program")
  end, "a map is pinned there, not a program")
  t:equal({ e.code, e.op, e.subject }, { "EINVAL", "bpf.pinned", mount .. "/map" })
  e = t:raises(function()
    bpf.pinned(mount .. "/nothing")
  end, "nothing is pinned there")
  t:equal(e.code, "ENOENT")
  t:raises(function()
    bpf.pinned(mount)
  end, "this is a folder")
  o:unload()
  o = nil
  collectgarbage()
  collectgarbage()
  -- By its pin alone it is whole: types and all.
  bpf.pinned(mount .. "/map"):set(0, 7)
  t:equal(bpf.pinned(mount .. "/map"):get(0), 7)
  t:equal(bpf.pinned(mount .. "/program"):test_run({ packet = FRAME }).retval, -1)
  collectgarbage()
  collectgarbage()
  local function listed(list, id)
    for _, each in ipairs(list) do
      if each.id == id then
        return true
      end
    end
    return false
  end
  t:equal({ listed(bpf.programs(), program), listed(bpf.maps(), map) }, { true, true })
  os.remove(mount .. "/map")
  os.remove(mount .. "/program")
  t:eventually(function()
    return not listed(bpf.programs(), program) and not listed(bpf.maps(), map)
  end)
end)

test.case("a link that another program has pinned", function(t)
  local mount = bpffs(t)
  local o = compile('SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }\n')
  local ns = t:netns("pins")
  local eth0 = link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns } })
  cnf._test.pin_xdp(eth0, o.programs.frames, mount .. "/link")
  local pinned = bpf.pinned(mount .. "/link")
  t:equal(pinned, bpf.pinned(mount .. "/link", "link"))
  t:equal(pinned:info(), { id = pinned.id, type = "xdp", program_id = o.programs.frames.id, index = eth0.index })
  t:equal(cnf.xdp.query(eth0).programs[1].id, o.programs.frames.id)
  pinned:detach()
  t:equal(cnf.xdp.query(eth0).programs, {})
  t:equal(pinned:info().index, 0)
end)

test.case("a pin wants a bpf file system", function(t)
  local path = object_file(t, COUNTER)
  local o = bpf.load(path)
  local place = temporary(t) .. ".pin"
  for _, object in ipairs({ o.maps.counts, o.programs.count }) do
    local refused = t:raises(function()
      object:pin(place)
    end, "the path is not on a bpf file system")
    t:equal(refused.hint, "mount one: mount -t bpf bpffs /sys/fs/bpf")
    t:equal(refused.subject, place)
  end
end)

test.case("what is loaded is listed, and gone when nothing holds it", function(t)
  local path = object_file(t, COUNTER)
  local o = bpf.load(path)
  local program, map = o.programs.count.id, o.maps.counts.id
  local function listed(list, id)
    for _, each in ipairs(list) do
      if each.id == id then
        return each
      end
    end
  end
  local info = o.programs.count:info()
  t:equal(info.map_ids, { map })
  t:equal(info.name, "count")
  t:equal(info.type, "tc")
  t:equal(info.tag, o.programs.count.tag)
  t:equal(info.gpl_compatible, true)
  t:equal(listed(bpf.programs(), program).tag, info.tag)
  t:equal(listed(bpf.maps(), map).type, "hash")
  o:unload()
  for _, use in ipairs({
    function()
      return o.programs
    end,
    function()
      return o.maps
    end,
  }) do
    local gone = t:raises(use, "ENODEV")
    t:equal(gone.message, "it has been unloaded")
  end
  t:equal(tostring(o), ("Object(%s, unloaded)"):format(path))
  o:unload()
  collectgarbage()
  collectgarbage()
  t:eventually(function()
    return not listed(bpf.programs(), program) and not listed(bpf.maps(), map)
  end)
end)

test.case("all of this system is listed, as bpftool lists it", function(t)
  bpftool.required(t)
  local ns = t:netns("a")
  local near = link.veth({ name = "near", netns = ns, peer = { name = "far", netns = ns } })
  local o = compile(COUNTER .. 'SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }\n')
  cnf.xdp.attach(near, o.programs.frames)
  local function by_id(list)
    local all = {}
    for _, each in ipairs(list) do
      all[each.id] = each
    end
    return all
  end
  -- Other processes load and let go meanwhile: what is there before a look and after it has to be in it.
  for what, list in pairs({ prog = bpf.programs, map = bpf.maps, link = bpf.links }) do
    local before = by_id(list())
    local theirs = by_id(bpftool.ask(what, "show"))
    local after, both = by_id(list()), 0
    for id, ours in pairs(before) do
      if after[id] then
        both = both + 1
        local other = theirs[id] or t:ok(false, ("bpftool does not list %s %d"):format(what, id))
        t:equal(other.tag, ours.tag)
        t:equal({ other.bytes_key, other.bytes_value, other.max_entries }, { ours.key_size, ours.value_size, ours.max_entries })
        if what ~= "prog" then
          -- Types newer than bpftool are numbers to it.
          t:equal(type(other.type) == "string" and other.type or ours.type, ours.type)
        else
          t:equal({ other.bytes_xlated, other.bytes_jited, other.uid }, { ours.translated_size, ours.jited_size > 0 and ours.jited_size or nil, ours.uid })
        end
      end
    end
    for id in pairs(by_id(bpftool.ask(what, "show"))) do
      t:ok(after[id] or not theirs[id], ("%s %d is not listed"):format(what, id))
    end
    t:ok(both > 0, what)
  end
end)

test.case("what is attached stays when its object is let go", function(t)
  local a, _, near = pair(t)
  local o = compile(COUNTER)
  local counts = o.maps.counts
  bpf.attach(near, "egress", o.programs.count)
  o:unload()
  o = nil
  collectgarbage()
  collectgarbage()
  t:equal(probe.ping(a, "10.0.0.2", { count = 3, interval = 0.01 }).received, 3)
  t:ok(counts:get(0) >= 3)
end)

test.case("a test run sees the context it is given", function(t)
  local o = compile([[
SEC("tc") int mark(struct __sk_buff *skb) { return skb->mark; }
SEC("tc") int priority(struct __sk_buff *skb) { return skb->priority; }
SEC("tc") int device(struct __sk_buff *skb) { return skb->ifindex; }
SEC("tc") int segments(struct __sk_buff *skb) { return skb->gso_segs; }
SEC("tc") int shorten(struct __sk_buff *skb) { return bpf_skb_change_tail(skb, 32, 0); }
SEC("xdp") int frame(struct xdp_md *ctx) { return ctx->ingress_ifindex; }
SEC("xdp") int cut(struct xdp_md *ctx) { return bpf_xdp_adjust_tail(ctx, -10) ? 0 : XDP_TX; }
]])
  local function run(name, ctx, packet)
    return o.programs[name]:test_run({ packet = packet or FRAME, ctx = ctx })
  end
  t:equal(run("mark", { mark = 2 ^ 31 - 1 }).retval, 2 ^ 31 - 1)
  t:equal(run("priority", { priority = 6 }).retval, 6)
  t:equal(run("segments", { gso_segs = 4 }).retval, 4)
  local ns = t:netns("a")
  local near = link.veth({ name = "near", netns = ns, peer = { name = "far", netns = ns } })
  near:up()
  t:equal(run("device", { ifindex = near }).retval, near.index, "a Link, in its namespace")
  t:equal(run("device", {}).retval, 1)
  t:equal(run("frame").retval, 1)
  t:equal(#run("shorten").packet, 32)
  t:equal(#run("cut").packet, 54)
  t:equal(run("cut").retval, 3)
  t:equal(run("mark", nil, ("abcd"):rep(20)).packet, ("abcd"):rep(20))
  local timed = o.programs.mark:test_run({ packet = FRAME, repeat_count = 1000 })
  t:equal(math.type(timed.nanoseconds), "integer")
  for _, wrong in ipairs({
    { packet = "short" },
    {},
    { packet = FRAME, repeats = 1 },
    { packet = FRAME, ctx = { marks = 1 } },
    { packet = FRAME, ctx = { mark = 2 ^ 32 } },
    { packet = 5 },
  }) do
    t:raises(function()
      o.programs.mark:test_run(wrong)
    end, "EINVAL")
  end
end)

test.case("a cut-off object is refused at every length", function(t)
  local whole = contents(object_file(t, COUNTER))
  local lengths = { 0, 1, 4, 16, 63, 64, 65, #whole - 1, #whole - 64 }
  for length = 100, #whole - 1, #whole // 60 do
    lengths[#lengths + 1] = length
  end
  for _, length in ipairs(lengths) do
    t:raises(function()
      bpf.load({ bytes = whole:sub(1, length) }, { name = "cut" })
    end, "EINVAL")
  end
end)

test.case("a damaged object is refused, or loads; nothing worse", function(t)
  local whole = contents(object_file(t, COUNTER))
  local seed = 7
  local function random(limit)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed // 65536 % limit
  end
  for _ = 1, 150 do
    local bytes = { whole:byte(1, -1) }
    for _ = 1, 1 + random(4) do
      bytes[1 + random(#bytes)] = random(256)
    end
    local parts = {}
    for i = 1, #bytes, 4096 do
      parts[#parts + 1] = string.char(table.unpack(bytes, i, math.min(i + 4095, #bytes)))
    end
    local ok, problem = pcall(bpf.load, { bytes = table.concat(parts) }, { name = "damaged" })
    t:ok(ok or problem.code ~= nil, tostring(problem))
  end
end)

test.case("the verifier's reason and the source line", function(t)
  local refused = t:raises(function()
    compile([[
SEC("tc") int bad(struct __sk_buff *skb) {
  char *data = (void *)(long)skb->data;
  return data[100];
}
]])
  end, "EACCES")
  t:equal(refused.op, "bpf.compile")
  t:ok(refused.message:find("not compared with data_end, at source:%d+$"), refused.message)
  t:ok(refused.detail:find("\n  return data[100];\n         ^\n", 1, true), refused.detail)
  t:ok(refused.detail:find("the verifier: invalid access to packet", 1, true), refused.detail)
  t:ok(refused.hint:find("data_end", 1, true), refused.hint)
end)

test.case("features are tried, and named", function(t)
  local features = bpf.features()
  for name, feature in pairs(features) do
    t:equal(feature.available, feature.reason == nil, name)
    t:equal(bpf.has(name), feature)
    t:ok(#feature.without > 0 and #feature.group > 0, name)
  end
  t:equal(features.prog_tc.group, "program types")
  t:equal(features.map_hash.available, true)
  t:equal(features.bpf.available, true)
  t:raises(function()
    bpf.has("netkitt")
  end, "EINVAL")
end)

test.case("the helpers of each type of program", function(t)
  local helpers = bpf.helpers()
  local function has(type, name)
    for _, each in ipairs(helpers[type]) do
      if each == name then
        return true
      end
    end
    return false
  end
  t:ok(has("tc", "bpf_skb_store_bytes") and not has("xdp", "bpf_skb_store_bytes"))
  t:ok(has("xdp", "bpf_xdp_adjust_head") and not has("tc", "bpf_xdp_adjust_head"))
end)
