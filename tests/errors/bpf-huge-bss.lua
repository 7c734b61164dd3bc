--- A variable that no memory is for.
require("cnf").bpf.compile({
  source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char huge[1ull << 46];
SEC("tc") int run(struct __sk_buff *skb) { return huge[skb->len]; }
]],
})
