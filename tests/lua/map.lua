--- Maps as scripts see them: keys and values by BTF.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local bpf, netns, test = cnf.bpf, cnf.netns, cnf.test
local bpftool, keys_of, source = require("bpftool"), require("keys"), require("source")

local SOURCE = [[
#include <stdbool.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>

enum verdict { PASS = 0, DROP = 2, LATER = 7 };
enum sign { MINUS = -1, NONE, PLUS };

struct widths {
  __u8 u8; __s8 s8; __u16 u16; __s16 s16; __u32 u32; __s32 s32; __u64 u64; __s64 s64;
  bool yes; char text[6]; __u8 mac[6];
};
struct point { __s32 x, y; };
struct nested {
  struct point at, line[2];
  __u16 grid[2][3];
  enum verdict verdict;
  enum sign sign;
  struct { __u8 inner; } anonymous;
  union { __u32 whole; __u16 half[2]; };
  __u32 low : 3, high : 5;
  const volatile __u32 constant;
};
struct wire { __be16 port; __be32 v4; __be64 wide; struct in_addr host; struct in6_addr v6; };
struct lpm4 { __u32 length; __u8 octets[4]; };
struct lpm6 { struct bpf_lpm_trie_key key; struct in6_addr address; };

MAP(widths, HASH, 8, __u32, struct widths);
MAP(nested, HASH, 8, struct point, struct nested);
MAP(wire, HASH, 8, __be16, struct wire);
MAP(by_address, HASH, 8, __be32, struct in6_addr);
MAP(by_name, HASH, 8, char[8], enum verdict);
MAP(by_verdict, HASH, 8, enum verdict, __u8);
MAP(bytes, HASH, 300, __u8, __u16);
MAP(wide, HASH, 8, __u64, __s64);
MAP(signed_keys, HASH, 8, __s32, __s8);
MAP(cells, ARRAY, 16, __u32, __u64);
MAP(routes4, LPM_TRIE, 64, struct lpm4, __u32, LAZY);
MAP(routes6, LPM_TRIE, 64, struct lpm6, __u32, LAZY);
MAP(counts, PERCPU_ARRAY, 4, __u32, __u64);
MAP(both, PERCPU_HASH, 4, __u32, struct point);
MAP(recent, LRU_HASH, 4, __u32, __u32);
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __uint(key_size, 6);
  __uint(value_size, 3); } plain SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 8); __uint(key_size, 4);
  __uint(value_size, 8); } plain_numbers SEC(".maps");
SEC("tc") int count(struct __sk_buff *skb) {
  __u32 zero = 0;
  __u64 *n = bpf_map_lookup_elem(&counts, &zero);
  if (n) *n += 1;
  return -1;
}
SEC("tc") int keep(struct __sk_buff *skb) { /* so that every map is in use */
  __u32 k = 0; return (bpf_map_lookup_elem(&widths, &k) != 0);
}
]]

local object = source.once(SOURCE)

local FRAME = ("\0"):rep(64)

test.case("integers of every width, at their ends", function(t)
  local m = object().maps.widths
  local ends = {
    { u8 = 255, s8 = -128, u16 = 65535, s16 = -32768, u32 = 2 ^ 32 - 1, s32 = -2 ^ 31 },
    { u8 = 0, s8 = 127, u16 = 0, s16 = 32767, u32 = 0, s32 = 2 ^ 31 - 1 },
  }
  for i, value in ipairs(ends) do
    value.u64, value.s64 = math.maxinteger, math.mininteger
    value.yes, value.text, value.mac = true, "sixsix", { 1, 2, 3, 4, 5, 255 }
    m:set(i, value)
    t:equal(m:get(i), value)
    t:equal(math.type(m:get(i).u32), "integer")
  end
  for field, wrong in pairs({
    u8 = 256,
    s8 = -129,
    u16 = -1,
    s16 = 32768,
    u32 = 2 ^ 32,
    s32 = -2 ^ 31 - 1,
    u64 = 2 ^ 64,
    s64 = 2 ^ 63,
  }) do
    local problem = t:raises(function()
      m:set(1, { [field] = wrong })
    end, "ERANGE")
    t:ok(problem.message:find("value: " .. field .. ": ", 1, true), problem.message)
    t:equal(problem.op, "map:set")
    t:equal(problem.subject, "widths")
  end
  -- Numbers beyond Lua's go in as they come out, bit by bit.
  m:set(2, { u64 = 0xffffffffffffffff })
  t:equal(("%x"):format(m:get(2).u64), "ffffffffffffffff")
  m:set(2, m:get(2))
  m:set(2, { u64 = 2 ^ 63 })
  t:equal(m:get(2).u64, math.mininteger)
  t:ok(math.ult(1, m:get(2).u64))
  -- What is not named is zero; a fraction is no integer; text is no number.
  m:set(3, { u8 = 1 })
  t:equal(m:get(3).u64, 0)
  t:equal(m:get(3).text, "")
  for _, wrong in ipairs({ { u8 = 1.5 }, { u8 = "1" }, { text = 5 }, { text = "seven77" }, { yes = 2 } }) do
    t:raises(function()
      m:set(3, wrong)
    end)
  end
  local unknown = t:raises(function()
    m:set(3, { u80 = 1 })
  end, "EINVAL")
  t:equal(unknown.hint, 'did you mean "u8"?')
  t:raises(function()
    m:set(-1, { u8 = 1 })
  end, "key: %-1 does not fit __u32")
  t:raises(function()
    m:set({ 1 }, { u8 = 1 })
  end, "EINVAL")
  t:raises(function()
    m:set(3, { u8 = 1, 5 })
  end, "both an array and a table of fields")
end)

test.case("structs in structs, arrays, enums, unions and bit fields", function(t)
  local m = object().maps.nested
  local value = {
    at = { x = -1, y = 2 },
    line = { { x = 1, y = 1 }, { x = 2, y = 2 } },
    grid = { { 1, 2, 3 }, { 4, 5, 6 } },
    verdict = "DROP",
    sign = "MINUS",
    anonymous = { inner = 9 },
    low = 5,
    high = 31,
    constant = 77,
    half = { 0x5678, 0x1234 },
  }
  m:set({ x = 3, y = -4 }, value)
  local read = m:get({ x = 3, y = -4 })
  value.whole = 0x12345678
  t:equal(read, value)
  m:set({ x = 0, y = 0 }, { verdict = 7, sign = 1 })
  t:equal(m:get({ y = 0 }).verdict, "LATER")
  t:equal(m:get({}).sign, "PLUS")
  m:set({}, { verdict = 5 })
  t:equal(m:get({}).verdict, 5, "a number without a name stays one")
  for wrong, code in pairs({
    [{ verdict = "DORP" }] = "EINVAL",
    [{ low = 8 }] = "ERANGE",
    [{ line = { {}, {}, {} } }] = "ERANGE",
    [{ grid = { { 1, 2, 3, 4 } } }] = "ERANGE",
    [{ grid = { { 1, 65536 } } }] = "ERANGE",
    [{ at = 5 }] = "EINVAL",
    [{ at = { z = 1 } }] = "EINVAL",
  }) do
    t:raises(function()
      m:set({}, wrong)
    end, code)
  end
  local deep = t:raises(function()
    m:set({}, { grid = { {}, { 1, 65536 } } })
  end)
  t:equal(deep.message, "value: grid[2][2]: 65536 does not fit __u16 (0 to 65535)")
  local found = 0
  for key, each in m:pairs() do
    t:ok(each.at and key.x, "pairs gives tables on both sides")
    found = found + 1
  end
  t:equal(found, 2)
  m:clear()
end)

test.case("network byte order and addresses", function(t)
  local m = object().maps.wire
  local value =
    { port = 443, v4 = "10.1.2.3", wide = 0x0102030405060708, host = "192.168.0.1", v6 = "fd00::1" }
  m:set(8080, value)
  t:equal(m:get(8080), value)
  m:set(8080, { v4 = 0x0a000001 })
  t:equal(m:get(8080).v4, "10.0.0.1", "an integer is in host order")
  for _, wrong in ipairs({ { v4 = "10.0.0" }, { v6 = "10.0.0.1" }, { port = 65536 }, { v4 = 2 ^ 32 } }) do
    t:raises(function()
      m:set(1, wrong)
    end)
  end
  local addresses = object().maps.by_address
  addresses:set("10.0.0.1", "fd00::a")
  t:equal(addresses:get("10.0.0.1"), "fd00::a")
  t:equal(addresses:get(0x0a000001), "fd00::a")
  t:equal(keys_of(addresses), { "10.0.0.1" })
end)

test.case("text and names as keys", function(t)
  local m = object().maps.by_name
  m:set("eth0", "DROP")
  m:set("12345678", 0)
  t:equal(m:get("eth0"), "DROP")
  t:equal(m:get("eth1"), nil)
  t:equal(keys_of(m), { "12345678", "eth0" })
  t:raises(function()
    m:set("123456789", 0)
  end, "ERANGE")
  local verdicts = object().maps.by_verdict
  verdicts:set("LATER", 1)
  t:equal(verdicts:get(7), 1)
  t:equal(keys_of(verdicts), { "LATER" })
  local signed = object().maps.signed_keys
  signed:set_many({ [-5] = -128, [5] = 127 })
  t:equal(signed:get(-5), -128)
  t:equal(keys_of(signed), { -5, 5 })
  local wide = object().maps.wide
  wide:set(math.maxinteger, math.mininteger)
  t:equal(wide:get(math.maxinteger), math.mininteger)
end)

test.case("set says whether the key may be there, get and delete whether it is", function(t)
  local m = object().maps.bytes
  m:set(1, 10, "noexist")
  t:raises(function()
    m:set(1, 11, "noexist")
  end, "EEXIST")
  m:set(1, 12, "exist")
  t:equal(m:get(1), 12)
  t:raises(function()
    m:set(2, 1, "exist")
  end, "ENOENT")
  t:equal(m:get(2), nil)
  t:equal(m:delete(1), true)
  t:equal(m:delete(1), false)
  t:raises(function()
    m:set(1, 1, "maybe")
  end, 'there is no flag "maybe"')
  t:raises(function()
    m:get()
  end, "a key is missing")
  t:equal(m:len(), 0)
end)

test.case("a full map says how large it is, an old entry makes room in an LRU", function(t)
  local m = object().maps.widths
  m:clear()
  for i = 1, 8 do
    m:set(i, {})
  end
  t:equal(m:len(), 8)
  t:equal(#m, 8)
  local full = t:raises(function()
    m:set(9, {})
  end, "E2BIG")
  t:equal(full.message, "the map is full: it holds 8 entries")
  m:set(8, { u8 = 1 })
  m:clear()
  t:equal(m:len(), 0)
  local recent = object().maps.recent
  for i = 1, 100 do
    recent:set(i, i)
  end
  t:ok(recent:len() <= 4)
end)

test.case("arrays have all of their elements", function(t)
  local m = object().maps.cells
  t:equal(m:len(), 16)
  t:equal(m:get(15), 0)
  t:equal(m:get(16), nil)
  m:set(3, 9)
  local sum, count = 0, 0
  for _, value in m:pairs() do
    sum, count = sum + value, count + 1
  end
  t:equal({ sum, count }, { 9, 16 })
  t:raises(function()
    m:set(16, 1)
  end, "beyond the array's 16 elements")
  t:raises(function()
    m:delete(3)
  end, "cannot be deleted")
  t:raises(function()
    m:set(3, 1, "noexist")
  end, "EEXIST")
  m:clear()
  t:equal(m:get(3), 0)
end)

test.case("LPM keys are CIDRs, whatever their fields are called", function(t)
  local four, six = object().maps.routes4, object().maps.routes6
  four:set_many({ ["10.0.0.0/8"] = 8, ["10.1.0.0/16"] = 16, ["0.0.0.0/0"] = 1 })
  t:equal(four:get("10.1.2.3/32"), 16)
  t:equal(four:get("10.1.2.3"), 16, "an address alone is a whole key")
  t:equal(four:get("10.2.0.0/16"), 8)
  t:equal(four:get("11.0.0.0/8"), 1)
  four:set("10.3.3.3/16", 3)
  t:equal(keys_of(four), { "0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.3.0.0/16" })
  t:equal(four:delete("10.1.0.0/16"), true)
  t:equal(four:get("10.1.2.3"), 8)
  six:set("fd00:1::/32", 32)
  six:set("::/0", 0)
  t:equal(six:get("fd00:1:2::5"), 32)
  t:equal(six:get("fe80::1"), 0)
  t:equal(keys_of(six), { "::/0", "fd00:1::/32" })
  for map, wrong in pairs({ [four] = "fd00::/8", [six] = "10.0.0.0/8" }) do
    t:raises(function()
      map:set(wrong, 1)
    end, "CIDR")
  end
  for _, wrong in ipairs({ "10.0.0.0/33", "10.0.0/8", "any", 5, {} }) do
    t:raises(function()
      four:set(wrong, 1)
    end, "CIDR")
  end
  four:clear()
  t:equal(four:len(), 0)
end)

test.case("per-CPU values add up", function(t)
  local counts, both = object().maps.counts, object().maps.both
  counts:clear()
  for _ = 1, 5 do
    object().programs.count:test_run({ packet = FRAME })
  end
  local values = counts:get(0)
  t:equal(values:sum(), 5)
  t:ok(#values >= 1)
  counts:set(1, 3)
  t:equal(counts:get(1):sum(), 3 * #values, "one value is written for every CPU")
  counts:set(1, { 7 })
  t:equal(counts:get(1)[1], 7)
  t:equal(counts:get(1):sum(), 7, "the others are zero")
  both:set(1, { { x = 1, y = -2 } })
  t:equal(both:get(1):sum(), { x = 1, y = -2 })
  both:set(1, { x = 1, y = 2 })
  t:equal(both:get(1):sum(), { x = #values, y = 2 * #values })
  for _, value in counts:pairs() do
    t:equal(type(value:sum()), "number")
  end
  local too_many = {}
  for i = 1, #values + 1 do
    too_many[i] = i
  end
  t:raises(function()
    counts:set(1, too_many)
  end, "ERANGE")
end)

test.case("without BTF: bytes, or integers where the size is a number's", function(t)
  local plain, numbers = object().maps.plain, object().maps.plain_numbers
  plain:set("abcdef", "\0\1\2")
  t:equal(plain:get("abcdef"), "\0\1\2")
  plain:set("\xff\xfe\xfd\xfc\xfb\xfa", "xyz")
  t:equal(plain:get("\xff\xfe\xfd\xfc\xfb\xfa"), "xyz")
  t:raises(function()
    plain:set("abc", "xyz")
  end, "EINVAL")
  t:raises(function()
    plain:set(1, "xyz")
  end, "a string of 6 bytes")
  numbers:set(1, 2)
  t:equal(numbers:get(1), 2)
  t:equal(numbers:get(string.pack("=I4", 1)), 2, "bytes are taken too")
  t:raises(function()
    numbers:set(2 ^ 32, 1)
  end, "ERANGE")
end)

test.case("maps declared as before BTF are maps of bytes and integers", function(t)
  local map = source.compile([[
struct old_map_def { unsigned int type, key_size, value_size, max_entries, map_flags; };
struct old_map_def SEC("maps") old = { BPF_MAP_TYPE_HASH, 4, 8, 4 };
SEC("tc") int p(struct __sk_buff *skb) {
  __u32 key = 7;
  __u64 *value = bpf_map_lookup_elem(&old, &key);
  return value ? *value : -1;
}]])
  map.maps.old:set(7, 42)
  t:equal(map.programs.p:test_run({ packet = FRAME }).retval, 42)
  t:equal(map.maps.old:get(string.pack("=I4", 7)), 42)
end)

test.case("members of a union that are given together must agree", function(t)
  local m = object().maps.nested
  m:set({}, { half = { 1, 2 }, whole = 0x00020001 })
  t:equal(m:get({}).whole, 0x20001)
  local changed = m:get({})
  m:set({}, changed)
  changed.half[1] = 5
  local problem = t:raises(function()
    m:set({}, changed)
  end, "EINVAL")
  t:ok(problem.message:find('"half" and "whole" share', 1, true), problem.message)
  changed.whole = nil
  m:set({}, changed)
  t:equal(m:get({}).whole, 0x20005)
  t:ok(problem.detail:find("struct {\n        __u8 inner;\n    } anonymous;", 1, true), problem.detail)
  m:clear()
end)

test.case("a map tells its shape", function(t)
  local info = object().maps.routes4:info()
  t:equal(info.id, object().maps.routes4.id)
  info.id, info.btf_id, info.flags = nil, nil, nil
  t:equal(info, {
    name = "routes4",
    type = "lpm_trie",
    key_size = 8,
    value_size = 4,
    max_entries = 64,
    key_type = "struct bpf_lpm_trie_key",
    value_type = "__u32",
  })
  t:equal(object().maps.nested:info().value_type, "struct nested")
  t:equal(object().maps.by_name:info().key_type, "char[8]")
  t:equal(object().maps.counts:info().value_size, 8)
  t:equal(tostring(object().maps.cells), ("Map(cells, array %d)"):format(object().maps.cells.id))
  local listed
  for _, each in ipairs(bpf.maps()) do
    listed = each.id == object().maps.cells.id and each or listed
  end
  t:equal(listed.name, "cells")
  t:equal(object().maps.cells, object().maps.cells)
end)

test.case("bpftool sees what we wrote", function(t)
  local host = netns.host()
  bpftool.required(t)
  local m = object().maps.nested
  m:clear()
  m:set({ x = 1, y = -2 }, { at = { x = 5 }, verdict = "DROP", grid = { { 0, 7 } } })
  local dump = host:exec({ "bpftool", "map", "dump", "id", tostring(m.id) })
  t:ok(dump.stdout:find('"y": %-2'), dump.stdout)
  t:ok(dump.stdout:find('"verdict": "DROP"', 1, true), dump.stdout)
  local text = dump.stdout:gsub("%s+", "")
  t:ok(text:find('"grid":[[0,7,0],[0,0,0]]', 1, true), dump.stdout)
  local hex = ("00 0a 0c 00"):gsub("%x%x", "0x%0")
  local routes = object().maps.routes4
  routes:clear()
  host:exec(
    ("bpftool map update id %d key 0x18 0 0 0 %s value 9 0 0 0"):format(routes.id, hex)
  )
  t:equal(routes:get("0.10.12.0/24"), 9)
  m:clear()
  routes:clear()
end)

test.case("a map outlives its object while the script holds it", function(t)
  local o = source.compile(SOURCE, { programs = { "keep" } })
  local cells, id = o.maps.cells, o.maps.widths.id
  cells:set(0, 5)
  o:unload()
  o = nil
  collectgarbage()
  collectgarbage()
  t:equal(cells:get(0), 5)
  t:eventually(function()
    for _, each in ipairs(bpf.maps()) do
      if each.id == id then
        return false
      end
    end
    return true
  end)
end)
