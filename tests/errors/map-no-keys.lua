--- Queues have no keys.
package.path = "./?.lua"
local queue = require("cnf").bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 4); __type(value, __u32); } queue SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) { __u32 v = 0; return bpf_map_pop_elem(&queue, &v) != 0; }
char LICENSE[] SEC("license") = "GPL";
]],
}).maps.queue

queue:set(1, 2)
