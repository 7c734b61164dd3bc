// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Forwards frames by the kernel's own routes and neighbours, from link to link, before the kernel has made packets of them.
 *
 * Maps
 *   ports      the links that take part, by index
 *   counters   by fate
 *
 * Hook: the last stage of `dispatch`.
 *
 * The fate of every frame
 *   not for this link's address, tagged, not IP,
 *   with IP options, not unicast                    the network stack
 *   the kernel's table says forward, the neighbour
 *   is known, it fits, TTL > 1, out by a port       TTL - 1, out of that port
 *   else: local, neighbour unknown, too big ...     the network stack, which resolves, answers, or forwards itself
 */
#include "include/frame.h"
#include "include/stages.h"

#define AF_INET 2
#define AF_INET6 10

enum fate { FATE_FORWARDED, FATE_STACK, FATE_NEIGHBOUR, FATE_TOO_BIG, FATE_EXPIRED, FATE_NO_PORT, FATES };

/* This link's address: others' frames, which a bridge or a card in promiscuous mode shows, are not for us to forward. */
const volatile __u8 mac[8] = {};

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FATES);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

static __always_inline int is_ours(const struct ethhdr *eth)
{
	return eth->h_dest[0] == mac[0] && eth->h_dest[1] == mac[1] && eth->h_dest[2] == mac[2] &&
	       eth->h_dest[3] == mac[3] && eth->h_dest[4] == mac[4] && eth->h_dest[5] == mac[5];
}

static __always_inline void put_address(__u32 out[4], struct address a)
{
	out[0] = bpf_htonl(a.high >> 32);
	out[1] = bpf_htonl(a.high);
	out[2] = bpf_htonl(a.low >> 32);
	out[3] = bpf_htonl(a.low);
}

/* Asks the kernel's routing and neighbour tables (bpf_fib_lookup, net/core/filter.c). */
static __always_inline long look_up(struct xdp_md *ctx, const struct packet *p, struct bpf_fib_lookup *fib)
{
	fib->ifindex = ctx->ingress_ifindex;
	fib->l4_protocol = p->protocol;
	fib->sport = bpf_htons(p->source_port);
	fib->dport = bpf_htons(p->destination_port);
	fib->tot_len = p->length;
	if (p->family == V4) {
		fib->family = AF_INET;
		fib->ipv4_src = bpf_htonl(p->from.low);
		fib->ipv4_dst = bpf_htonl(p->to.low);
	} else {
		fib->family = AF_INET6;
		put_address(fib->ipv6_src, p->from);
		put_address(fib->ipv6_dst, p->to);
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), 0);
}

static __always_inline enum fate failed(long why)
{
	if (why == BPF_FIB_LKUP_RET_NO_NEIGH)
		return FATE_NEIGHBOUR;
	if (why == BPF_FIB_LKUP_RET_FRAG_NEEDED)
		return FATE_TOO_BIG;
	return FATE_STACK;
}

/* Whether the frame is one that might be forwarded; `eth` is its start. */
static __always_inline int is_forwardable(struct xdp_md *ctx, struct packet *p, struct ethhdr *eth)
{
	__u8 *ip;

	if (!eth || !is_ours(eth) || !parse_frame(ctx, p) || p->vlan)
		return 0;
	if (p->family == V6)
		return !stays6(p->to) && !stays6(p->from);
	/* Options are the network stack's. */
	ip = frame_at(ctx, sizeof(*eth), 1);
	return ip && *ip == 0x45 && !stays4(p->to.low);
}

/* One hop less to live. The checksum's word that holds TTL falls by 0x0100 in network order (RFC 1624). */
static __always_inline int decrement_ttl(struct xdp_md *ctx, const struct packet *p)
{
	struct ipv6hdr *ip6;
	struct iphdr *ip4;
	__u32 sum;

	if (p->family == V6) {
		ip6 = frame_at(ctx, sizeof(struct ethhdr), sizeof(*ip6));
		if (!ip6)
			return 0;
		ip6->hop_limit--;
		return 1;
	}
	ip4 = frame_at(ctx, sizeof(struct ethhdr), sizeof(*ip4));
	if (!ip4)
		return 0;
	sum = ip4->check + bpf_htons(0x0100);
	ip4->check = sum + (sum >= 0xffff);
	ip4->ttl--;
	return 1;
}

static __always_inline enum fate try_forward(struct xdp_md *ctx, struct packet *p, __u32 *port)
{
	struct ethhdr *eth = frame_at(ctx, 0, sizeof(*eth));
	struct bpf_fib_lookup fib = {};
	long why;

	if (!is_forwardable(ctx, p, eth))
		return FATE_STACK;
	if (p->ttl <= 1)
		return FATE_EXPIRED;
	frame_ports(ctx, p);
	why = look_up(ctx, p, &fib);
	if (why != BPF_FIB_LKUP_RET_SUCCESS)
		return failed(why);
	*port = fib.ifindex;
	if (!bpf_map_lookup_elem(&ports, port))
		return FATE_NO_PORT;
	if (!decrement_ttl(ctx, p))
		return FATE_STACK;
	__builtin_memcpy(eth->h_dest, fib.dmac, ETH_ALEN);
	__builtin_memcpy(eth->h_source, fib.smac, ETH_ALEN);
	return FATE_FORWARDED;
}

SEC("xdp.frags") int forward(struct xdp_md *ctx)
{
	struct packet p = {};
	__u32 port = 0, fate = try_forward(ctx, &p, &port);
	struct counter *counter = bpf_map_lookup_elem(&counters, &fate);

	if (counter) {
		counter->packets++;
		counter->bytes += p.length ? p.length : ctx->data_end - ctx->data;
	}
	if (fate != FATE_FORWARDED)
		return next_stage(ctx);
	return bpf_redirect_map(&ports, port, 0);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
