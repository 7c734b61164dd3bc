--- `m:get`, `m:set` and `m:delete` of numbers, which take a way of their own: what they give is what the long way gives,
--- and whatever they do not take goes there.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local source = require("source")
local netns, test = cnf.netns, cnf.test

local TYPES = {
  u8 = { 0, 255 },
  s8 = { -128, 127 },
  u16 = { 0, 65535 },
  s16 = { -32768, 32767 },
  u32 = { 0, 2 ^ 32 - 1 },
  s32 = { -2 ^ 31, 2 ^ 31 - 1 },
  u64 = { 0, math.maxinteger },
  s64 = { math.mininteger, math.maxinteger },
}

local declarations = {
  "MAP(cells, ARRAY, 4, __u32, __u32);",
  "MAP(recent, LRU_HASH, 4, __u32, __u32);",
  "MAP(counts, PERCPU_HASH, 4, __u32, __u32);",
  "struct point { __s32 x, y; };",
  "MAP(points, HASH, 4, __u32, struct point);",
  "MAP(named, HASH, 4, __u32, char[8]);",
  "MAP(words, HASH, 4, char[4], __u32);",
}
for name in pairs(TYPES) do
  declarations[#declarations + 1] = ("MAP(by_%s, HASH, 8, __%s, __%s);"):format(name, name, name)
end
declarations[#declarations + 1] = 'SEC("tc") int nothing(struct __sk_buff *skb) { return 0; }'

--- The error of a call.
local function refused(t, pattern, call, ...)
  local arguments = table.pack(...)
  return t:raises(function()
    call(table.unpack(arguments, 1, arguments.n))
  end, pattern)
end

local object = source.once(table.concat(declarations, "\n"))

--- Numbers of another kind, with the same value, which the quick way does not take.
local function long(number)
  return math.type(number) == "integer" and math.tointeger(number + 0.0) == number and number + 0.0
    or number
end

test.case("the methods are Lua's own functions, and there is a method behind each", function(t)
  for _, name in ipairs({ "get", "set", "delete" }) do
    t:equal(debug.getinfo(object().maps.cells[name], "u").nups, 4)
  end
end)

test.case("numbers of every width read and write as they do the long way", function(t)
  for name, range in pairs(TYPES) do
    local m = object().maps["by_" .. name]
    for _, edge in ipairs(range) do
      local key = math.tointeger(edge)
      m:set(key, key)
      t:equal(m:get(key), key)
      t:equal(m:get(long(key)), key)
      m:set(key, long(7))
      t:equal(m:get(key), 7)
      t:equal({ m:delete(key) }, { true })
      t:equal({ m:delete(key) }, { false })
      t:equal(m:get(key), nil)
      t:equal(m:get(long(key)), nil)
    end
  end
end)

test.case("what does not fit is refused in the words of the long way", function(t)
  for name, range in pairs(TYPES) do
    local m, low, high = object().maps["by_" .. name], math.tointeger(range[1]), math.tointeger(range[2])
    for _, wrong in ipairs(high < math.maxinteger and { low - 1, high + 1 } or {}) do
      for _, give in ipairs({
        function(n)
          m:set(n, 1)
        end,
        function(n)
          m:set(1, n)
        end,
        function(n)
          m:get(n)
        end,
        function(n)
          m:delete(n)
        end,
      }) do
        local quick = refused(t, "ERANGE", give, wrong)
        local slow = refused(t, "ERANGE", give, wrong + 0.0)
        t:equal(quick.message, slow.message)
        t:equal(quick.op, slow.op)
        t:equal(quick.where, slow.where)
      end
    end
  end
end)

test.case("the kernel's refusals are told as before", function(t)
  local m = object().maps
  refused(t, "the elements of an array cannot be deleted", m.cells.delete, m.cells, 1)
  local error = refused(t, "the index is beyond the array's 4 elements", function()
    m.cells:set(4, 1)
  end)
  t:equal(error.op, "map:set")
  t:equal(error.subject, "cells")
  t:ok(error.where:find("map_quick%.lua:%d+$"), error.where)
  t:equal(m.cells:get(4), nil)
  for key = 1, 8 do
    m.by_u32:set(key, key)
  end
  refused(t, "the map is full", m.by_u32.set, m.by_u32, 9, 9)
  m.by_u32:clear()
end)

test.case("other values, other kinds of maps and flags take the long way", function(t)
  local m = object().maps
  m.points:set(1, { x = 1, y = -2 })
  t:equal(m.points:get(1), { x = 1, y = -2 })
  m.named:set(1, "eth0")
  t:equal(m.named:get(1), "eth0")
  m.words:set("abcd", 5)
  t:equal(m.words:get("abcd"), 5)
  m.counts:set(1, 3)
  t:equal(m.counts:get(1)[1], 3)
  t:equal(m.counts:delete(1), true)
  m.by_u32:set(1, 1, "noexist")
  refused(t, "EEXIST", m.by_u32.set, m.by_u32, 1, 2, "noexist")
  m.by_u32:set(1, 2, nil)
  t:equal(m.by_u32:get(1), 2)
  refused(t, "there is no flag", m.by_u32.set, m.by_u32, 1, 2, "perhaps")
  refused(t, "a key is missing", m.by_u32.get, m.by_u32)
  refused(t, "a key is missing", m.by_u32.delete, m.by_u32)
  t:equal({ m.by_u32:get(1, 2, 3) }, { 2 })
  m.by_u32:clear()
end)

test.case("what is no map is refused, whatever it is", function(t)
  local m = object().maps
  local other = netns.host()
  for _, wrong in ipairs({ other, io.stdout, {}, "map", 1 }) do
    refused(t, "", m.cells.get, wrong, 1)
    refused(t, "", m.cells.set, wrong, 1, 1)
    refused(t, "", m.cells.delete, wrong, 1)
  end
  refused(t, "", m.cells.get)
  refused(t, "no field or method", function()
    return m.cells.got
  end)
  t:equal(m.cells.name, "cells")
  t:equal(math.type(m.cells.id), "integer")
end)
