--- What bpftool dumps of a map is what the script reads, kind by kind; what it writes too.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../")
  .. "lib/?.lua;"
  .. package.path

local cnf = require("cnf")
local bpftool, source = require("bpftool"), require("source")
local link, netns, probe, test = cnf.link, cnf.netns, cnf.probe, cnf.test

local SOURCE = [[
#include <stdbool.h>

enum verdict { PASS = 0, DROP = 2 };
enum sign { MINUS = -1, NONE };
typedef __u32 count_t;
struct inside { __s64 pair[2]; };
struct value {
  __s8 s8; __u8 u8; __s16 s16; __u16 u16; __s32 s32; count_t u32; __s64 s64; __u64 u64;
  bool yes; char name[8]; enum verdict verdict; enum sign sign; __u32 low : 3, high : 29;
  union { __u32 whole; __u8 bytes[4]; } either; struct inside in[2]; __u16 grid[2][3];
};
struct lpm { __u32 prefixlen; __u8 data[4]; };

MAP(hash, HASH, 4, __u32, struct value);
MAP(array, ARRAY, 4, __u32, struct value);
MAP(lru_hash, LRU_HASH, 4, struct inside, struct value);
MAP(percpu_hash, PERCPU_HASH, 4, __u32, struct value);
MAP(percpu_array, PERCPU_ARRAY, 4, __u32, __u64);
MAP(lru_percpu_hash, LRU_PERCPU_HASH, 4, enum verdict, struct inside);
MAP(lpm_trie, LPM_TRIE, 4, struct lpm, struct value, LAZY);
MAP(devmap, DEVMAP, 4, __u32, __u32);
MAP(devmap_hash, DEVMAP_HASH, 4, __u32, struct bpf_devmap_val);
MAP(cpumap, CPUMAP, 4, __u32, struct bpf_cpumap_val);
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 4); __type(value, struct inside); } queue
  SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK); __uint(max_entries, 4); __type(value, struct inside); } stack
  SEC(".maps");
MAP(sockmap, SOCKMAP, 4, __u32, __u64);
MAP(sockhash, SOCKHASH, 4, __u32, __u64);
struct { __uint(type, BPF_MAP_TYPE_BLOOM_FILTER); __uint(max_entries, 4); __type(value, __u32); } bloom_filter
  SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ringbuf SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY); __uint(key_size, 4); __uint(value_size, 4); }
  perf_event_array SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int);
  __type(value, __u32); } sk_storage SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4);
  __uint(value_size, 4); } prog_array SEC(".maps");
struct one { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u32); } first SEC(".maps"), second SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
  __array(values, struct one); } hash_of_maps SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
  __array(values, struct one); } array_of_maps SEC(".maps");
SEC("tc") int pass(struct __sk_buff *skb) { return -1; }
]]

local host = netns.host()

local function loaded(t)
  bpftool.required(t)
  return source.compile(SOURCE)
end

--- A value at the ends of its fields.
local function value(number)
  return {
    s8 = -128,
    u8 = 255,
    s16 = -32768,
    u16 = 65535,
    s32 = -0x80000000,
    u32 = 0xffffffff,
    s64 = math.mininteger,
    u64 = 0xfffffffffffffff0 + number,
    yes = true,
    name = "v" .. number,
    verdict = "DROP",
    sign = "MINUS",
    low = 5,
    high = 0x1abcdef0 + number,
    either = { whole = 0x04030201 },
    ["in"] = { { pair = { -1, number } }, { pair = { 2 } } },
    grid = { { 1, 2, 3 }, { 4, 5, 65535 } },
  }
end

--- bpftool's hexadecimal bit fields as numbers, so that both sides are alike.
local function plain(formatted)
  if type(formatted) ~= "table" then
    return tonumber(type(formatted) == "string" and formatted:match("^0x%x+$")) or formatted
  end
  local out = {}
  for key, each in pairs(formatted) do
    out[key] = plain(each)
  end
  return out
end

--- A string that is the same for equal keys.
local function spelt(key)
  if type(key) ~= "table" then
    return tostring(key)
  end
  local parts = {}
  for name, each in pairs(key) do
    parts[#parts + 1] = tostring(name) .. "=" .. spelt(each)
  end
  table.sort(parts)
  return "{" .. table.concat(parts, ",") .. "}"
end

--- What bpftool makes of a map by its BTF, by key.
local function dumped(map)
  local all = {}
  for _, entry in ipairs(bpftool.ask("map", "dump", "id", tostring(map.id))) do
    local key, read = plain(entry.formatted.key), plain(entry.formatted.value)
    if type(key) == "table" and key.prefixlen then
      key = ("%d.%d.%d.%d/%d"):format(key.data[1], key.data[2], key.data[3], key.data[4], key.prefixlen)
    end
    if entry.formatted.values then
      read = {}
      for _, cpu in ipairs(entry.formatted.values) do
        read[cpu.cpu + 1] = plain(cpu.value)
      end
    end
    all[spelt(key)] = read
  end
  return all
end

local function pairs_of(map)
  local all = {}
  for key, read in map:pairs() do
    all[spelt(key)] = read
  end
  return all
end

local KEYS = {
  lru_hash = { { pair = { -5, 7 } }, { pair = { 1, math.mininteger } } },
  lru_percpu_hash = { "PASS", "DROP" },
  lpm_trie = { "10.0.0.0/8", "192.168.7.0/24" },
}
local VALUES = {
  percpu_array = { { 7 }, 0xffffffffffffffff },
  lru_percpu_hash = { { pair = { 1, -2 } }, { { pair = { 3 } } } },
  percpu_hash = { value(1), { value(2) } },
}

for _, kind in ipairs({
  "hash",
  "array",
  "lru_hash",
  "percpu_hash",
  "percpu_array",
  "lru_percpu_hash",
  "lpm_trie",
}) do
  test.case(kind .. ": bpftool and the script read the same", function(t)
    local map = loaded(t).maps[kind]
    local keys, values = KEYS[kind] or { 1, 3 }, VALUES[kind] or { value(1), value(2) }
    for i, key in ipairs(keys) do
      map:set(key, values[i])
    end
    local ours, theirs = pairs_of(map), dumped(map)
    t:ok(next(ours))
    t:equal(ours, theirs)
    t:equal(bpftool.ask("map", "show", "id", tostring(map.id)).type, kind)
  end)
end

--- What bpftool prints as numbers, as bytes.
local function hex(bytes)
  local packed = {}
  for i, byte in ipairs(bytes) do
    packed[i] = string.char(tonumber(byte))
  end
  return table.concat(packed)
end

--- Little-endian words of what bpftool prints without types.
local function words(bytes)
  local packed = hex(bytes)
  local read = { string.unpack(("<" .. ("I4"):rep(#packed // 4)), packed) }
  read[#read] = nil
  return read
end

test.case("maps of programs, maps and devices have the same ids", function(t)
  local object = loaded(t)
  local m, ns = object.maps, t:netns("a")
  local near = link.veth({ name = "near", netns = ns, peer = { name = "far", netns = ns } })
  local function first_words(map)
    local all = {}
    for _, entry in ipairs(bpftool.ask("map", "dump", "id", tostring(map.id))) do
      local bytes = entry.value and not entry.value.error and entry.value
      if bytes then
        all[words(entry.key)[1]] = words(bytes)[1]
      end
    end
    return all
  end
  m.prog_array:set(2, object.programs.pass)
  m.hash_of_maps:set(9, m.first)
  m.array_of_maps:set(1, m.second)
  m.devmap:set(1, near)
  m.devmap_hash:set(77, near)
  m.cpumap:set(0, 192)
  t:equal(first_words(m.prog_array), { [2] = object.programs.pass.id })
  t:equal(first_words(m.hash_of_maps), { [9] = m.first.id })
  t:equal(first_words(m.array_of_maps)[1], m.second.id)
  t:equal(first_words(m.devmap)[1], near.index)
  t:equal(first_words(m.devmap_hash), { [77] = near.index })
  t:equal(first_words(m.cpumap)[0], 192)
  t:equal(m.devmap_hash:get(77), { ifindex = near.index, bpf_prog = { fd = 0, id = 0 } })
  t:equal(m.cpumap:get(0).qsize, 192)
  -- The same in the words of their types.
  m.devmap_hash:set(78, { ifindex = near })
  m.cpumap:set(0, { qsize = 256 })
  t:equal({ m.devmap_hash:get(78).ifindex, m.cpumap:get(0).qsize }, { near.index, 256 })
end)

test.case("maps of sockets have the same cookies", function(t)
  local m, ns = loaded(t).maps, t:netns("a")
  local server = probe.serve(ns, { tcp = 80 })
  for _, kind in ipairs({ "sockmap", "sockhash" }) do
    local map, theirs, ours = m[kind], {}, {}
    map:set(1, server)
    for _, entry in ipairs(bpftool.ask("map", "dump", "id", tostring(map.id))) do
      if entry.value and not entry.value.error then
        theirs[words(entry.key)[1]] = (string.unpack("<I8", hex(entry.value)))
      end
    end
    for key, cookie in map:pairs() do
      ours[key] = cookie
    end
    t:ok(ours[1] > 0)
    t:equal(ours, theirs)
  end
end)

local UNLISTED = {
  ringbuf = "m:on_record",
  perf_event_array = "m:on_record",
  bloom_filter = "m:peek(value)",
  sk_storage = "m:get(owner)",
  queue = "m:pop()",
  stack = "m:pop()",
}

test.case("what bpftool has no elements of to show, cannot be listed, and says so", function(t)
  local m = loaded(t).maps
  for kind, hint in pairs(UNLISTED) do
    local map = m[kind]
    local dumped = host:exec({ "bpftool", "-j", "map", "dump", "id", tostring(map.id) }, { check = false })
    for entry in dumped.stdout:gmatch('"value":%b[]') do
      t:ok(not entry:find("0x", 1, true), entry)
    end
    for _, method in ipairs({ "pairs", "len", "clear" }) do
      -- What has no keys is not cleared by them.
      if method ~= "clear" or hint:find("m:[go]") then
        local error = t:raises(function()
          map[method](map)
        end, ("the elements of %s maps cannot be listed"):format(kind))
        t:ok(error.hint:find(hint, 1, true), error.hint)
        t:equal(error.code, "EOPNOTSUPP")
      end
    end
  end
end)

test.case("queues and stacks give bpftool what they give the script", function(t)
  local m = loaded(t).maps
  for i = 1, 2 do
    m.queue:push({ pair = { i, -i } })
    m.stack:push({ pair = { i, -i } })
  end
  local function peek(map)
    local bytes = words(bpftool.ask("map", "peek", "id", tostring(map.id)).value)
    return { pair = { bytes[1], -(~bytes[3] + 1 & 0xffffffff) } }
  end
  t:equal(peek(m.queue), m.queue:peek())
  t:equal(peek(m.stack), m.stack:peek())
  t:equal({ m.queue:pop().pair[1], m.stack:pop().pair[1] }, { 1, 2 })
  host:exec(("bpftool map push id %d value %s"):format(m.queue.id, ("7 0 0 0 0 0 0 0 "):rep(2)))
  m.queue:pop()
  t:equal(m.queue:pop(), { pair = { 7, 7 } })
end)

test.case("what bpftool writes, the script reads", function(t)
  local m = loaded(t).maps
  host:exec(
    ("bpftool map update id %d key 7 0 0 0 0 0 0 0 255 255 255 255 255 255 255 255 value %s"):format(
      m.lru_hash.id,
      ("1 "):rep(m.lru_hash:info().value_size)
    )
  )
  local read = m.lru_hash:get({ pair = { 7, -1 } })
  t:equal({ read.u8, read.u16, read.u64 }, { 1, 0x101, 0x0101010101010101 })
  t:equal({ read.sign, read.verdict }, { 0x01010101, 0x01010101 }, "numbers without a name")
  host:exec(("bpftool map delete id %d key hex %s"):format(
    m.lru_hash.id,
    "07 00 00 00 00 00 00 00 ff ff ff ff ff ff ff ff"
  ))
  t:equal(m.lru_hash:get({ pair = { 7, -1 } }), nil)
end)
