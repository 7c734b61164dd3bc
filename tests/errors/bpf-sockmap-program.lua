local cnf = require("cnf")
local object = cnf.bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); }
  sockets SEC(".maps");
SEC("tc") int pass(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
]],
})
cnf.bpf.attach_sockmap(object.maps.sockets, object.programs.pass)
