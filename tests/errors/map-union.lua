--- Two members of a union that say different things.
package.path = "./?.lua"
local rules = require("cnf").bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct rule { union { __u32 word; __u8 bytes[4]; }; __u32 low : 4, high : 28; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, struct rule); } rules SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) { __u32 k = 0; return bpf_map_lookup_elem(&rules, &k) != 0; }
char LICENSE[] SEC("license") = "GPL";
]],
}).maps.rules

rules:set(1, { bytes = { 1, 2, 3, 4 }, word = 0x04030201 })
local rule = rules:get(1)
rule.word = 5
rules:set(1, rule)
