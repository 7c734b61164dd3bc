--- Loads a map, or reads it, and prints the seconds of processor time that took: "packed", "table", "get" or
--- "set", and how many.
local cnf = require("cnf")
local way, count = cnf.args[1], tonumber(cnf.args[2])

local map = cnf.bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1024); __type(key, __u32);
  __type(value, __u64); } map SEC(".maps");
SEC("tc") int use(struct __sk_buff *skb) {
  __u32 key = 0;
  return bpf_map_lookup_elem(&map, &key) != 0;
}
char LICENSE[] SEC("license") = "GPL";
]],
}, { max_entries = { map = (way == "get" or way == "set") and 1024 or count } }).maps.map

local function packed()
  local keys, values = {}, {}
  for i = 1, count do
    keys[i], values[i] = string.pack("=I4", i), string.pack("=I8", i * 2)
  end
  keys, values = table.concat(keys), table.concat(values)
  return function()
    map:set_many({ keys, values })
  end
end

local function from_table()
  local all = {}
  for i = 1, count do
    all[i] = i * 2
  end
  return function()
    map:set_many(all)
  end
end

local function get()
  for i = 0, 1023 do
    map:set(i, 7)
  end
  return function()
    local sum = 0
    for i = 1, count do
      sum = sum + map:get(i & 1023)
    end
    assert(sum == count * 7)
  end
end

local function set()
  for i = 0, 1023 do
    map:set(i, 7)
  end
  return function()
    for i = 1, count do
      map:set(i & 1023, 7)
    end
  end
end

local work = ({ packed = packed, table = from_table, get = get, set = set })[way]()
collectgarbage()
local start = os.clock()
work()
print(("%.9f"):format(os.clock() - start))
