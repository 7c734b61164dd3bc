--- Many elements of maps at once, and what becomes of those before one that does not fit.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local test = cnf.test
local keys_of, source = require("keys"), require("source")

local SOURCE = [[
struct lpm4 { __u32 length; __u8 octets[4]; };

MAP(many, HASH, 20000, __u32, __u32);
MAP(few, HASH, 8, __u32, __u32);
MAP(networks, LPM_TRIE, 100000, struct lpm4, __u32, LAZY);
MAP(small, LPM_TRIE, 5000, struct lpm4, __u32, LAZY);
SEC("tc") int nothing(struct __sk_buff *skb) { return 0; }
]]

local object = source.once(SOURCE)

test.case("many at once: tables, iterators, packed strings", function(t)
  local m = object().maps.many
  local all = {}
  for i = 1, 20000 do
    all[i] = i * 2
  end
  t:equal(m:set_many(all), 20000)
  t:equal(m:len(), 20000)
  t:equal(m:get(20000), 40000)
  local sum = 0
  for key, value in m:pairs() do
    t:ok(value == key * 2)
    sum = sum + 1
  end
  t:equal(sum, 20000)
  local keys = {}
  for i = 1, 9999 do
    keys[i] = i
  end
  keys[10000] = 70000
  t:equal(m:delete_many(keys), 9999, "one was not there")
  t:equal(m:len(), 10001)
  m:clear()
  t:equal(m:len(), 0)

  t:equal(m:set_many(pairs({ [5] = 50, [6] = 60 })), 2)
  local i = 0
  t:equal(
    m:set_many(function()
      i = i + 1
      if i <= 3 then
        return i, i
      end
    end),
    3
  )
  t:equal(keys_of(m), { 1, 2, 3, 5, 6 })
  t:equal(m:delete_many(pairs({ [5] = true, [6] = true })), 2)
  t:equal(m:set_many({ string.pack("=I4I4", 7, 8), string.pack("=I4I4", 70, 80) }), 2)
  t:equal({ m:get(7), m:get(8) }, { 70, 80 })
  t:equal(m:delete_many(string.pack("=I4I4", 7, 8)), 2)
  t:equal(keys_of(m), { 1, 2, 3 })

  t:raises(function()
    m:set_many({ string.pack("=I4", 7), string.pack("=I4I4", 70, 80) })
  end, "must be as many keys of 4 as values of 4")
  t:raises(function()
    m:delete_many("123")
  end, "not a multiple of 4")
  t:raises(function()
    m:set_many({ [1] = 5, [2] = "no" })
  end, "EINVAL")
  t:equal(m:get(1), 1, "nothing is written when one does not fit")
  t:raises(function()
    m:set_many(function()
      error("from the iterator")
    end)
  end, "from the iterator")
  t:raises(function()
    m:set_many(5)
  end, "takes a table, an iterator")
  local full = t:raises(function()
    object().maps.few:set_many({ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 })
  end, "E2BIG")
  t:ok(full.message:find("after 8 of 10 entries", 1, true), full.message)
  object().maps.few:clear()
end)

--- So many networks of 24 bits, the n-th with the value n, packed: keys and values.
local function networks(count)
  local keys, values = {}, {}
  for i = 1, count do
    keys[i] = string.pack("<I4>I4", 24, i << 8)
    values[i] = string.pack("=I4", i)
  end
  return { table.concat(keys), table.concat(values) }
end

local function address(i)
  return ("%d.%d.%d.9"):format(i >> 16, i >> 8 & 255, i & 255)
end

test.case("a hundred thousand networks go into a trie at once, and most of them out again", function(t)
  local trie = object().maps.networks
  t:equal(trie:set_many(networks(100000)), 100000)
  for i = 1, 100000, 997 do
    t:equal(trie:get(address(i)), i)
  end
  t:equal(trie:get(address(100001)), nil)
  t:equal(#trie, 100000)
  t:equal(trie:delete_many(networks(60000)[1]), 60000)
  t:equal({ #trie, trie:get(address(60000)), trie:get(address(60001)) }, { 40000, nil, 60001 })
  trie:clear()
  t:equal(#trie, 0)
end)

test.case("a trie that is full keeps what came before, and says how much", function(t)
  local trie = object().maps.small
  local error = t:raises(function()
    trie:set_many(networks(9000))
  end, "the map is full: it holds 5000 entries, after 5000 of 9000 entries")
  t:equal({ error.op, error.subject, error.code }, { "map:set_many", "small", "ENOSPC" })
  t:equal({ #trie, trie:get(address(5000)), trie:get(address(5001)) }, { 5000, 5000, nil })
  -- Those that are there are written again, whatever there is no room for.
  t:equal(trie:set_many(networks(5000)), 5000)
  t:equal(trie:delete_many(networks(9000)[1]), 5000)
  t:equal(#trie, 0)
end)
