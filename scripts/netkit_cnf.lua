--- A simple network function between two namespaces, over netkit.
---
---   ns1 10.0.1.2 ---netkit0--- 10.0.1.1 cnf 10.0.2.1 ---netkit1--- 10.0.2.2 ns2
---
--- The CNF forwards, and an eBPF program on each side of netkit0 counts what goes to ns1 (primary) and what comes from it
--- (peer). Both programs attach through the primary end; nothing of them is in ns1.
---
--- usage: cnfscript scripts/netkit_cnf.lua [--link veth] [--keep]     --link veth where the kernel has no netkit
--- requires: netkit
--- output:
---   ping ns1 -> ns2: 4 of 4, tcp says "hello"
---   from ns1: # packets, # bytes
---   to ns1:   # packets, # bytes

local cnf = require "cnf"
local bpf, link, netkit, netns, probe = cnf.bpf, cnf.link, cnf.netkit, cnf.netns, cnf.probe

local words = table.concat(cnf.args, " ")
local use_veth, keep = words:find("--link veth", 1, true), words:find("--keep", 1, true)
if not use_veth and not bpf.has("netkit").available then
  cnf.error { code = "EOPNOTSUPP", message = bpf.has("netkit").reason, hint = "run it with --link veth" }
end

local function pair(options)
  if use_veth then
    return link.veth(options)
  end
  options.mode = "l3"
  return netkit.pair(options)
end

local ns1, ns2, router = netns.new("nk-ns1"), netns.new("nk-ns2"), netns.new("nk-cnf")
local nk0 = pair {
  name = "netkit0", netns = router, address = "10.0.1.1/24",
  peer = { name = "eth0", netns = ns1, address = "10.0.1.2/24" },
}
pair {
  name = "netkit1", netns = router, address = "10.0.2.1/24",
  peer = { name = "eth0", netns = ns2, address = "10.0.2.2/24" },
}
ns1:route { dst = "default", via = "10.0.1.1" }
ns2:route { dst = "default", via = "10.0.2.1" }
router:sysctl("net.ipv4.ip_forward", 1)

local counter = bpf.compile { source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct count { __u64 packets; __u64 bytes; };
enum side { TO_NS1, FROM_NS1 };

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct count);
} counts SEC(".maps");

static int add(struct __sk_buff *skb, __u32 side)
{
	struct count *count = bpf_map_lookup_elem(&counts, &side);

	if (count) {
		__sync_fetch_and_add(&count->packets, 1);
		__sync_fetch_and_add(&count->bytes, skb->len);
	}
	return -1; /* NETKIT_NEXT, TCX_NEXT: whatever comes behind decides */
}

SEC("netkit/primary") int to_ns1(struct __sk_buff *skb) { return add(skb, TO_NS1); }
SEC("netkit/peer") int from_ns1(struct __sk_buff *skb) { return add(skb, FROM_NS1); }

char _license[] SEC("license") = "GPL";
]] }
if use_veth then
  bpf.attach(nk0, "egress", counter.programs.to_ns1)
  bpf.attach(nk0, "ingress", counter.programs.from_ns1)
else
  netkit.attach(nk0, "primary", counter.programs.to_ns1)
  netkit.attach(nk0, "peer", counter.programs.from_ns1)
end

probe.serve(ns2, { tcp = 8080, reply = "hello" })
local ping = probe.ping(ns1, "10.0.2.2", { count = 4, interval = "20ms" })
local reply = probe.tcp(ns1, "10.0.2.2:8080").reply
print(('ping ns1 -> ns2: %d of %d, tcp says "%s"'):format(ping.received, ping.sent, reply))
assert(ping.received == 4 and reply == "hello")

local to, from = counter.maps.counts:get(0), counter.maps.counts:get(1)
print(("from ns1: %d packets, %d bytes"):format(from.packets, from.bytes))
print(("to ns1:   %d packets, %d bytes"):format(to.packets, to.bytes))
assert(from.packets >= 8 and to.packets >= 7, "four pings and a TCP connection")

if not keep then
  cnf.exit()
end
