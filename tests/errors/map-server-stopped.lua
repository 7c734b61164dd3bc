--- A server that has closed its socket.
local cnf = require("cnf")
local storage = cnf.bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC); __type(key, int);
  __type(value, __u64); } storage SEC(".maps");
SEC("tc") int run(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
]],
}).maps.storage
local server = cnf.probe.serve(cnf.netns.new("golden-" .. cnf._test.pid()), { udp = 7 })
server:stop()
storage:set(server, 1)
