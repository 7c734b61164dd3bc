--- A declaration whose sizes contradict its types.
package.path = "./?.lua"
local bytes = require("lib.object")([[
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, struct rule); __uint(value_size, 4); } rules SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) { __u32 k = 0; return bpf_map_lookup_elem(&rules, &k) != 0; }
]])

require("cnf").bpf.load({ bytes = bytes }, { name = "rules.o" })
