/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Another address and port in a packet's header, with all checksums right: of whole packets and fragments, of those whose
 * checksum the device still owes (CHECKSUM_PARTIAL), and of UDP datagrams that have none.
 */
#ifndef REWRITE_H
#define REWRITE_H

#include "parse.h"

#define TCP_CHECKSUM_OFFSET 16
#define UDP_CHECKSUM_OFFSET 6

enum end { SOURCE_END, DESTINATION_END };

/* The address and port that one end gets. */
struct endpoint {
	struct in6_addr address; /* IPv4 as ::ffff:a.b.c.d */
	__be16 port;
	__u16 pad;
};

static __always_inline const struct address *address_of(const struct packet *p, enum end end)
{
	return end == SOURCE_END ? &p->from : &p->to;
}

/* How the sum of an IPv6 packet's bytes changes with one address, for bpf_l4_csum_replace. */
static __always_inline __s64 address_change(const struct packet *p, enum end end, const struct endpoint *to)
{
	const struct address *now = address_of(p, end);
	__be32 before[4] = {bpf_htonl(now->high >> 32), bpf_htonl(now->high), bpf_htonl(now->low >> 32),
			    bpf_htonl(now->low)};
	struct in6_addr after = to->address;

	return bpf_csum_diff(before, sizeof(before), (__be32 *)&after, sizeof(after), 0);
}

/* One address in an IP header, and that header's checksum. `flags` are of an IPv6 address's bpf_skb_store_bytes. */
static __always_inline long rewrite_address(struct __sk_buff *ctx, const struct packet *p, enum end end,
					    const struct endpoint *to, __u64 flags)
{
	struct in6_addr after = to->address;

	if (p->family == V4) {
		__be32 before = bpf_htonl(address_of(p, end)->low);
		__u32 place = end == SOURCE_END ? offsetof(struct iphdr, saddr) :
						  offsetof(struct iphdr, daddr);

		return bpf_l3_csum_replace(ctx, p->l3 + offsetof(struct iphdr, check), before,
					   after.in6_u.u6_addr32[3], sizeof(before)) ||
		       bpf_skb_store_bytes(ctx, p->l3 + place, &after.in6_u.u6_addr32[3], sizeof(before), 0);
	}
	return bpf_skb_store_bytes(ctx,
				   p->l3 + (end == SOURCE_END ? offsetof(struct ipv6hdr, saddr) :
								offsetof(struct ipv6hdr, daddr)),
				   &after, sizeof(after), flags);
}

/* The port and the checksum over it; `flags` and `at` are those of the checksum. */
static __always_inline long rewrite_port(struct __sk_buff *ctx, const struct packet *p, enum end end,
					 __be16 port, __u32 at, __u64 flags)
{
	__u16 now = end == SOURCE_END ? p->source_port : p->destination_port;
	__be16 before = bpf_htons(now);

	if (before == port)
		return 0;
	return bpf_l4_csum_replace(ctx, at, before, port, flags | sizeof(port)) ||
	       bpf_skb_store_bytes(ctx, p->l4 + (end == SOURCE_END ? 0 : 2), &port, sizeof(port), 0);
}

/*
 * Rewrites one end; non-zero when the packet is too short or cannot be written to, and then it may be half done: drop it.
 * TCP and UDP alone.
 */
static __noinline int rewrite(struct __sk_buff *ctx, const struct packet *p, enum end end,
			      const struct endpoint *to)
{
	/* A UDP datagram without a checksum keeps none, and none becomes zero (RFC 768). */
	__u64 flags = p->protocol == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0, complete = 0;
	__u32 at = p->l4 + (p->protocol == IPPROTO_UDP ? UDP_CHECKSUM_OFFSET : TCP_CHECKSUM_OFFSET);
	int headers = p->fragment != LATER_FRAGMENT;

	if (headers && p->family == V4) {
		if (bpf_l4_csum_replace(ctx, at, bpf_htonl(address_of(p, end)->low),
					to->address.in6_u.u6_addr32[3],
					flags | BPF_F_PSEUDO_HDR | sizeof(__be32)))
			return -1;
	} else if (headers) {
		if (bpf_l4_csum_replace(ctx, at, 0, address_change(p, end, to), flags | BPF_F_PSEUDO_HDR))
			return -1;
		/*
		 * The sum of the whole packet, where the device gave one (CHECKSUM_COMPLETE), does not change: address and
		 * checksum cancel each other. bpf_l4_csum_replace takes its part off, as is right for IPv4; this puts it
		 * back.
		 */
		complete = BPF_F_RECOMPUTE_CSUM;
	}
	if (rewrite_address(ctx, p, end, to, complete))
		return -1;
	return headers ? rewrite_port(ctx, p, end, to->port, at, flags) : 0;
}

#endif
