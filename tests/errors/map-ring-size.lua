--- A ring buffer's size is not any number of bytes.
package.path = "./?.lua"
require("cnf").bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 1000); } events SEC(".maps");
SEC("tc") int p(struct __sk_buff *skb) { return bpf_ringbuf_output(&events, "x", 1, 0) != 0; }
char LICENSE[] SEC("license") = "GPL";
]],
})
