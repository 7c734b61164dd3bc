--- status: 3
--- A map of sockets that are not shown: its values are descriptors, and a cookie does not fit.
local cnf = require("cnf")
local sockets = cnf.bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
  sockets SEC(".maps");
SEC("tc") int run(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
]],
}).maps.sockets
sockets:get(0)
