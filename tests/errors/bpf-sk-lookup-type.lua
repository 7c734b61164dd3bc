local bpf = require("cnf").bpf
local source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("xdp") int run(void *ctx) { return 1; }
char LICENSE[] SEC("license") = "GPL";
]]
local program = bpf.compile({ source = source }).programs.run
bpf.attach_sk_lookup(require("cnf").netns.host(), program)
