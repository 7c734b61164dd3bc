--- A path from a client by a router to a server, with what reloads change: a program, policies, what stands beside it.
---
--- PREFIX and NUMBER are filled in by whoever loads it: each number is another version of the script.

local cnf = require "cnf"

local function source(step)
  return ([[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } seen SEC(".maps");
SEC("tc") int count(struct __sk_buff *skb) {
  __u32 zero = 0;
  __u64 *n = bpf_map_lookup_elem(&seen, &zero);
  if (n) __sync_fetch_and_add(n, %d);
  return -1;
}
char LICENSE[] SEC("license") = "GPL";
]]):format(step)
end
local n = NUMBER
local c, r, s = cnf.netns.new('PREFIXc'), cnf.netns.new('PREFIXr'), cnf.netns.new('PREFIXs')
local c0, r0 = cnf.link.veth { name = 'c0', netns = c, address = '10.80.0.2/24', peer = { name = 'r0', netns = r, address = '10.80.0.1/24' } }
local r1, s0 = cnf.link.veth { name = 'r1', netns = r, address = '10.81.0.1/24', peer = { name = 's0', netns = s, address = '10.81.0.2/24' } }
r:sysctl('net.ipv4.ip_forward', 1)
c:route { dst = 'default', via = '10.80.0.1' }
s:route { dst = 'default', via = '10.81.0.1' }
local o = cnf.bpf.compile { source = source(1 + n % 3) }
cnf.bpf.attach(r0, 'ingress', o.programs.count, { first = true })
local p = cnf.policy.router { name = 'edge', attach = { { r0, 'ingress' } } }
local set = { { from = '10.80.0.0/24', via = '10.81.0.2', dev = r1 } }
for i = 1, 100 do
  set[#set + 1] = { from = ('10.%d.%d.0/24'):format(90 + n % 5, i), via = '10.81.0.2', dev = r1 }
end
p:set(set)
-- What has nothing to do with the path.
local x = cnf.netns.new('PREFIXx' .. n % 4)
cnf.link.bridge { name = 'br' .. n % 2, netns = x, address = ('10.82.%d.1/24'):format(n % 250) }
x:route { dst = ('10.83.%d.0/24'):format(n % 250), type = 'blackhole' }
r:route { dst = '10.84.0.0/16', via = '10.81.0.2', metric = 100 + n % 3 }
cnf.state.n = n
