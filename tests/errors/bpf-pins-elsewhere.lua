--- A folder for pins that is no bpffs.
package.path = "./?.lua"
local cnf = require("cnf")
cnf.bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32);
  __uint(pinning, LIBBPF_PIN_BY_NAME); } shared SEC(".maps");
SEC("tc") int run(void *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
]],
}, { pins = "/proc" })
