--- What the messages about eBPF are tried on: an object, and a link of its own.
local cnf = require("cnf")

local source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
enum verdict { PASS, DROP };
struct rule {
  __be32 address;
  __u16 port;
  enum verdict verdict;
};
struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 2);
  __type(key, __u16);
  __type(value, struct rule);
} rules SEC(".maps");
const volatile __u8 limit = 1;
SEC("tc") int count(struct __sk_buff *skb) {
  __u16 key = limit;
  return bpf_map_lookup_elem(&rules, &key) ? 0 : -1;
}
SEC("tc") int other(struct __sk_buff *skb) { return -1; }
SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp") int again(struct xdp_md *ctx) { return XDP_PASS; }
char LICENSE[] SEC("license") = "GPL";
]]

local counter = {}

function counter.load(options)
  options = options or {}
  options.name = "counter.o"
  return cnf.bpf.compile({ source = source }, options)
end

function counter.link()
  local ns = cnf.netns.new("messages-" .. cnf._test.pid())
  return cnf.link.veth({ name = "eth0", netns = ns, peer = { name = "eth1", netns = ns } })
end

return counter
