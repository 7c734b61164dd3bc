--- The types of an object are damaged: their header says more than there is.
package.path = "./?.lua"
local bytes = require("lib.object")([[
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, struct rule); } rules SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) { __u32 k = 0; return bpf_map_lookup_elem(&rules, &k) != 0; }
]])
-- `struct btf_header`: magic, version, flags, the header's length, then offsets and lengths.
local at = bytes:find("\x9f\xeb\1\0", 1, true)
bytes = bytes:sub(1, at + 11) .. string.pack("<I4", 0x7fffffff) .. bytes:sub(at + 16)

require("cnf").bpf.load({ bytes = bytes }, { name = "rules.o" })
