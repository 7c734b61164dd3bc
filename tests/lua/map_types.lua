--- Types that few maps have: wide enums and bit fields, floating point, pointers, locks, text in arrays.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local source = require("source")
local test = cnf.test

local SOURCE = [[
#include <stdbool.h>
enum wide { SMALL = 1, LARGE = 1ULL << 40 };
enum low { NEGATIVE = -(1LL << 40), POSITIVE = 1 };
struct odd {
  enum wide wide; enum low low;
  int five : 5; unsigned long long forty : 40; long long signed_24 : 24;
  float single; double real;
  char names[2][8]; unsigned char raw[4]; signed char small[3]; char one;
  void *pointer; int (*function)(int);
};
struct locked { struct bpf_spin_lock lock; __u32 count; };
struct huge { unsigned __int128 number; };
MAP(odds, HASH, 4, __u32, struct odd);
MAP(locks, HASH, 4, __u32, struct locked);
MAP(huges, HASH, 4, __u32, struct huge);
MAP(pointers, HASH, 4, __u32, void *);
MAP(flags, HASH, 4, bool, double);
SEC("tc") int add(struct __sk_buff *skb) {
  __u32 key = 0;
  struct locked *found = bpf_map_lookup_elem(&locks, &key);
  if (found) { bpf_spin_lock(&found->lock); found->count++; bpf_spin_unlock(&found->lock); }
  return 0;
}
]]

test.case("each reads as it was written", function(t)
  local odds = source.compile(SOURCE).maps.odds
  local value = {
    wide = "LARGE",
    low = "NEGATIVE",
    five = -16,
    forty = (1 << 40) - 1,
    signed_24 = -(1 << 23),
    single = 1.5,
    real = 2.25,
    names = { "ab", "12345678" },
    raw = { 1, 2, 3, 255 },
    small = { -128, 127, 0 },
    one = 65,
    pointer = 0x1234,
    ["function"] = -1,
  }
  odds:set(1, value)
  t:equal(odds:get(1), value)
  odds:set(1, { wide = 1 << 41, low = 7, raw = "abcd", pointer = "\1\0\0\0\0\0\0\0" })
  local read = odds:get(1)
  t:equal({ read.wide, read.low, read.raw, read.pointer }, { 1 << 41, 7, { 97, 98, 99, 100 }, 1 })
end)

test.case("none takes more than it holds", function(t)
  local odds = source.compile(SOURCE).maps.odds
  for _, row in ipairs({
    { { five = 16 }, "five: 16 does not fit int : 5 (-16 to 15)" },
    { { five = -17 }, "five: -17 does not fit" },
    { { forty = 1 << 40 }, "forty: 1099511627776 does not fit" },
    { { signed_24 = 1 << 23 }, "signed_24: 8388608 does not fit" },
    { { single = "1" }, 'single: float takes a number, not "1"' },
    { { names = { "123456789" } }, "names[1]: 9 bytes do not fit char[8]" },
    { { one = "A" }, 'one: char takes an integer, not "A"' },
    { { pointer = {} }, "pointer: void * takes" },
    { { wide = "LARG" }, "takes one of SMALL, LARGE" },
  }) do
    local problem = t:raises(function()
      odds:set(1, row[1])
    end)
    t:ok(problem.message:find(row[2], 1, true), problem.message)
  end
end)

test.case("keys and values that are one of them", function(t)
  local m = source.compile(SOURCE).maps
  m.pointers:set(1, 0x7fff0000)
  t:equal(m.pointers:get(1), 0x7fff0000)
  m.flags:set(true, 0.5)
  t:equal({ m.flags:get(true), m.flags:get(false) }, { 0.5, nil })
  m.huges:set(1, { number = ("\1"):rep(16) })
  t:equal(m.huges:get(1).number, ("\1"):rep(16))
end)

test.case("a lock beside a number stays the kernel's", function(t)
  local o = source.compile(SOURCE)
  o.maps.locks:set(0, { count = 3 })
  o.programs.add:test_run({ packet = ("\0"):rep(64), repeat_count = 4 })
  t:equal(o.maps.locks:get(0), { lock = "\0\0\0\0", count = 7 })
end)
