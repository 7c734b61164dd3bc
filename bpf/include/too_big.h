/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The answer to a packet that does not fit its target: ICMP "fragmentation needed" or ICMPv6 "packet too big", made out
 * of the packet itself and sent back. Also to IPv4 senders that allow fragments: a redirected packet cannot be cut here,
 * and a sender that hears the MTU cuts for itself.
 *
 * At ingress it leaves by the device the packet came in by, from the router's address there. At egress it enters the
 * own stack by the device the packet was leaving by, from the packet's destination: a local source would be dropped
 * as martian, and the route to that destination uses this device, so reverse-path filters agree.
 */
#ifndef ROUTER_TOO_BIG_H
#define ROUTER_TOO_BIG_H

#include "maps.h"
#include "parse.h"

#define QUOTE 96       /* bytes of the packet that the answer quotes: any IPv4 header and a TCP checksum behind it */
#define ANSWER_TTL 64
#define TCP_CHECKSUM 16 /* offset of the checksum in a TCP, in a UDP header */
#define UDP_CHECKSUM 6

/* The router's own addresses on the devices it is attached to. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

/* As linux/icmp.h has it, which draws in the C library. */
#define ICMP_DEST_UNREACH 3
#define ICMP_FRAG_NEEDED 4
#define ICMP_SOURCE_QUENCH 4
#define ICMP_REDIRECT 5
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER_PROBLEM 12

struct icmp_too_big {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__be16 unused;
	__be16 mtu;
};

struct answer4 {
	struct iphdr ip;
	struct icmp_too_big icmp;
	__u8 quote[QUOTE];
};

struct answer6 {
	struct ipv6hdr ip;
	struct icmp6hdr icmp;
	__u8 quote[QUOTE];
};

static __always_inline __u16 folded(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

/* About 950 answers a second; a race between processors lets a few more through. */
static __always_inline int may_answer(struct state *state)
{
	__u64 window = bpf_ktime_get_coarse_ns() >> ANSWER_WINDOW_SHIFT;

	if (state->answer_window != window) {
		state->answer_window = window;
		state->answers = 0;
	}
	return __sync_fetch_and_add(&state->answers, 1) < ANSWERS_PER_WINDOW;
}

/* ICMP errors are not answered with ICMP errors (RFC 1122, RFC 4443). */
static __always_inline int is_icmp_error(struct __sk_buff *ctx, const struct packet *p)
{
	__u8 type;

	if (p->protocol != IPPROTO_ICMP && p->protocol != IPPROTO_ICMPV6)
		return 0;
	if (bpf_skb_load_bytes(ctx, p->l4, &type, sizeof(type)))
		return 1;
	if (p->protocol == IPPROTO_ICMPV6)
		return type < 128;
	return type == ICMP_DEST_UNREACH || type == ICMP_SOURCE_QUENCH || type == ICMP_REDIRECT ||
	       type == ICMP_TIME_EXCEEDED || type == ICMP_PARAMETER_PROBLEM;
}

/*
 * Cuts the packet to its quote and makes room for `headers` before it. Returns 1 when the device still owes the quoted
 * packet its checksum (CHECKSUM_PARTIAL; change_tail refuses to cut before that field), 0 when not, negative when it
 * cannot be done.
 */
static __always_inline int cut_to_quote(struct __sk_buff *ctx, const struct packet *p, __u32 headers,
					const void *quote)
{
	int owed = bpf_skb_change_tail(ctx, p->l4 + 4, 0) != 0;

	if (bpf_skb_change_tail(ctx, p->l3 + QUOTE, 0) ||
	    bpf_skb_adjust_room(ctx, headers, BPF_ADJ_ROOM_MAC, 0))
		return -1;
	if (bpf_skb_store_bytes(ctx, p->l3 + headers, quote, QUOTE, 0))
		return -1;
	return owed;
}

/*
 * The sum of what the answer quotes. When the device will fill in the quoted checksum later, the sum from that header
 * on is known before: the complement of what stands in the field now (local checksum offload, as lco_csum() in Linux).
 */
static __always_inline __s64 quote_sum(const struct packet *p, const __u8 *quote, int owed)
{
	__u32 before = p->l4 - p->l3, field;

	if (!owed)
		return bpf_csum_diff(0, 0, (__be32 *)quote, QUOTE, 0);
	field = before + (p->protocol == IPPROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM);
	if ((p->protocol != IPPROTO_TCP && p->protocol != IPPROTO_UDP) || field > QUOTE - 2)
		return -1;
	before &= 0x7c;
	if (before > QUOTE)
		return -1;
	return bpf_csum_diff(0, 0, (__be32 *)quote, before,
			     (__u16) ~*(__u16 *)(quote + (field & 0x7e)));
}

static __always_inline int send_back(struct __sk_buff *ctx, int egress, int headerless)
{
	if (!headerless) {
		__u8 macs[2 * ETH_ALEN], swapped[2 * ETH_ALEN];

		if (bpf_skb_load_bytes(ctx, 0, macs, sizeof(macs)))
			return -1;
		__builtin_memcpy(swapped, macs + ETH_ALEN, ETH_ALEN);
		__builtin_memcpy(swapped + ETH_ALEN, macs, ETH_ALEN);
		if (bpf_skb_store_bytes(ctx, 0, swapped, sizeof(swapped), 0))
			return -1;
	}
	return bpf_redirect(ctx->ifindex, egress ? BPF_F_INGRESS : 0);
}

static __noinline int answer4(struct __sk_buff *ctx, const struct packet *p, __u32 mtu, int egress,
			      int headerless)
{
	struct answer4 a = {
		.ip = {.version = 4, .ihl = 5, .ttl = ANSWER_TTL, .protocol = IPPROTO_ICMP},
		.icmp = {.type = ICMP_DEST_UNREACH, .code = ICMP_FRAG_NEEDED},
	};
	__u32 ifindex = ctx->ifindex;
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	__s64 sum;
	int owed;

	if (bpf_skb_load_bytes(ctx, p->l3, a.quote, QUOTE))
		return -1;
	owed = cut_to_quote(ctx, p, sizeof(a) - QUOTE, a.quote);
	if (owed < 0)
		return -1;
	a.ip.tot_len = bpf_htons(sizeof(a));
	a.ip.daddr = bpf_htonl(p->from.low);
	a.ip.saddr = !egress && port && port->address4 ? port->address4 : bpf_htonl(p->to.low);
	a.ip.check = folded(bpf_csum_diff(0, 0, (__be32 *)&a.ip, sizeof(a.ip), 0));
	a.icmp.mtu = bpf_htons(mtu);
	sum = quote_sum(p, a.quote, owed);
	if (sum < 0)
		return -1;
	a.icmp.checksum = folded(bpf_csum_diff(0, 0, (__be32 *)&a.icmp, sizeof(a.icmp), sum));
	if (bpf_skb_store_bytes(ctx, p->l3, &a, sizeof(a) - QUOTE, 0))
		return -1;
	return send_back(ctx, egress, headerless);
}

static __noinline int answer6(struct __sk_buff *ctx, const struct packet *p, __u32 mtu, int egress,
			      int headerless)
{
	struct answer6 a = {
		.ip = {.version = 6, .nexthdr = IPPROTO_ICMPV6, .hop_limit = ANSWER_TTL},
		.icmp = {.icmp6_type = ICMPV6_PKT_TOOBIG},
	};
	__be32 pseudo[2] = {bpf_htonl(sizeof(a) - sizeof(a.ip)), bpf_htonl(IPPROTO_ICMPV6)};
	__u32 ifindex = ctx->ifindex;
	struct port *port = bpf_map_lookup_elem(&ports, &ifindex);
	__s64 sum;
	int owed;

	if (bpf_skb_load_bytes(ctx, p->l3, a.quote, QUOTE))
		return -1;
	owed = cut_to_quote(ctx, p, sizeof(a) - QUOTE, a.quote);
	if (owed < 0)
		return -1;
	a.ip.payload_len = bpf_htons(sizeof(a) - sizeof(a.ip));
	/* The quote starts with the IPv6 header: source at 8, destination at 24. */
	__builtin_memcpy(&a.ip.daddr, a.quote + 8, sizeof(a.ip.daddr));
	if (!egress && port && port->address6[0])
		__builtin_memcpy(&a.ip.saddr, port->address6, sizeof(a.ip.saddr));
	else
		__builtin_memcpy(&a.ip.saddr, a.quote + 24, sizeof(a.ip.saddr));
	a.icmp.icmp6_mtu = bpf_htonl(mtu);
	sum = quote_sum(p, a.quote, owed);
	if (sum < 0)
		return -1;
	sum = bpf_csum_diff(0, 0, (__be32 *)&a.ip.saddr, 2 * sizeof(a.ip.saddr), sum);
	sum = bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), sum);
	a.icmp.icmp6_cksum = folded(bpf_csum_diff(0, 0, (__be32 *)&a.icmp, sizeof(a.icmp), sum));
	if (bpf_skb_store_bytes(ctx, p->l3, &a, sizeof(a) - QUOTE, 0))
		return -1;
	return send_back(ctx, egress, headerless);
}

/* Turns the packet into the answer and returns what the program returns, negative when no answer is due. */
static __always_inline int answer_too_big(struct __sk_buff *ctx, struct state *state,
					  const struct packet *p, __u32 mtu, int egress, int headerless)
{
	if (p->fragment == LATER_FRAGMENT || p->length < QUOTE || is_icmp_error(ctx, p) ||
	    !may_answer(state))
		return -1;
	return p->family == V4 ? answer4(ctx, p, mtu, egress, headerless) :
				 answer6(ctx, p, mtu, egress, headerless);
}

#endif
