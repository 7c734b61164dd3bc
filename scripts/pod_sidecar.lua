--- Pod - netkit - sidecar - tcx - host: a sidecar filters what its pod sends and accounts for what leaves.
---
---   pod 10.244.0.2 ---netkit--- 10.244.0.1 sidecar 172.18.0.2 ---veth, tcx--- 172.18.0.1 host
---
--- On the netkit side a policy drops the pod's telnet; on tcx egress of the uplink a program counts packets by protocol.
---
--- usage: cnfscript scripts/pod_sidecar.lua [--link veth] [--keep]     --link veth where the kernel has no netkit
--- requires: netkit
--- output:
---   ping pod -> host: 3 of 3
---   tcp 80: "host", tcp 23: ETIMEDOUT
---   tcx egress of the uplink: icmp 3, tcp #

local cnf = require "cnf"
local bpf, link, netkit, netns = cnf.bpf, cnf.link, cnf.netkit, cnf.netns
local policy, probe = cnf.policy, cnf.probe

local words = table.concat(cnf.args, " ")
local use_veth, keep = words:find("--link veth", 1, true), words:find("--keep", 1, true)
if not use_veth and not bpf.has("netkit").available then
  cnf.error { code = "EOPNOTSUPP", message = bpf.has("netkit").reason, hint = "run it with --link veth" }
end

local pod, sidecar, host = netns.new("ps-pod"), netns.new("ps-sidecar"), netns.new("ps-host")
local options = {
  name = "pod", netns = sidecar, address = "10.244.0.1/24",
  peer = { name = "eth0", netns = pod, address = "10.244.0.2/24" },
}
if not use_veth then
  options.mode = "l3"
end
local to_pod = (use_veth and link.veth or netkit.pair)(options)
local uplink = link.veth {
  name = "uplink", netns = sidecar, address = "172.18.0.2/24",
  peer = { name = "pods", netns = host, address = "172.18.0.1/24" },
}
pod:route { dst = "default", via = "10.244.0.1" }
host:route { dst = "10.244.0.0/24", via = "172.18.0.2" }
sidecar:sysctl("net.ipv4.ip_forward", 1)

local filter = policy.router { name = "filter", attach = { { to_pod, use_veth and "ingress" or "peer" } } }
filter:set { { from = "10.244.0.0/24", proto = "tcp", dport = 23, action = "drop" } }

local meter = bpf.compile { source = [[
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u64);
} by_protocol SEC(".maps");

SEC("tcx/egress") int meter(struct __sk_buff *skb)
{
	struct iphdr ip;
	__u32 protocol;
	__u64 *count;

	if (skb->protocol != bpf_htons(ETH_P_IP) || bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1; /* TCX_NEXT */
	protocol = ip.protocol;
	count = bpf_map_lookup_elem(&by_protocol, &protocol);
	if (count)
		__sync_fetch_and_add(count, 1);
	return -1;
}

char _license[] SEC("license") = "GPL";
]] }
bpf.attach(uplink, "egress", meter.programs.meter)

probe.serve(host, { tcp = 80, reply = "host" })
probe.serve(host, { tcp = 23, reply = "host" })
local ping = probe.ping(pod, "172.18.0.1", { count = 3, interval = "20ms" })
print(("ping pod -> host: %d of %d"):format(ping.received, ping.sent))
local web = probe.tcp(pod, "172.18.0.1:80").reply
local _, telnet = pcall(probe.tcp, pod, "172.18.0.1:23", { timeout = "200ms" })
print(('tcp 80: "%s", tcp 23: %s'):format(web, telnet.code))
local icmp, tcp = meter.maps.by_protocol:get(1), meter.maps.by_protocol:get(6)
print(("tcx egress of the uplink: icmp %d, tcp %d"):format(icmp, tcp))

assert(ping.received == 3 and web == "host" and telnet.code == "ETIMEDOUT")
assert(icmp == 3 and tcp >= 4, "three pings and one connection left by the uplink")
assert(filter:stats()[1].packets >= 1, "the filter dropped the telnet")

if not keep then
  cnf.exit()
end
