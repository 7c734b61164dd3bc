--- A program that sends records, loaded.
local SOURCE = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct event { __u64 words[4]; };
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); __type(value, struct event); } events
    SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u32); } cells
    SEC(".maps");
SEC("tc") int send(struct __sk_buff *skb) {
  __u32 zero = 0;
  if (skb->mark) {
    char text[5] = "short";
    bpf_ringbuf_output(&events, text, sizeof(text), 0);
    return 0;
  }
  struct event e = {};
  bpf_ringbuf_output(&events, &e, sizeof(e), 0);
  return bpf_map_lookup_elem(&cells, &zero) == 0;
}
char LICENSE[] SEC("license") = "GPL";
]]

return require("cnf").bpf.compile({ source = SOURCE })
