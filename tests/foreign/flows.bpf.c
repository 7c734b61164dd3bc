/* As libbpf's users write: a tc program that counts by protocol and port, in a map that libbpf would pin by name. Compiled
 * with clang alone, against the headers of libbpf-dev. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct flow_key {
	__be32 saddr;
	__be32 daddr;
	__be16 dport;
	__u8 protocol;
	__u8 pad;
};

struct flow_stats {
	__u64 packets;
	__u64 bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct flow_key);
	__type(value, struct flow_stats);
#ifndef UNPINNED
	__uint(pinning, LIBBPF_PIN_BY_NAME);
#endif
} flow_table SEC(".maps");

const volatile __u16 only_port = 0;
__u64 seen;

static __always_inline int parse(struct __sk_buff *skb, struct flow_key *key)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct iphdr *ip = (void *)(eth + 1);
	struct udphdr *udp = (void *)(ip + 1);

	if ((void *)(udp + 1) > data_end || eth->h_proto != bpf_htons(ETH_P_IP) ||
	    ip->protocol != IPPROTO_UDP)
		return -1;
	key->saddr = ip->saddr;
	key->daddr = ip->daddr;
	key->dport = udp->dest;
	key->protocol = ip->protocol;
	return 0;
}

SEC("tc")
int count_flows(struct __sk_buff *skb)
{
	struct flow_key key = {};
	struct flow_stats *stats, first = { .packets = 1, .bytes = skb->len };

	if (parse(skb, &key) || (only_port && key.dport != bpf_htons(only_port)))
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&seen, 1);
	stats = bpf_map_lookup_elem(&flow_table, &key);
	if (!stats) {
		bpf_map_update_elem(&flow_table, &key, &first, BPF_NOEXIST);
		return TC_ACT_UNSPEC;
	}
	__sync_fetch_and_add(&stats->packets, 1);
	__sync_fetch_and_add(&stats->bytes, skb->len);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
