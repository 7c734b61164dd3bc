/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * The packet that an ICMP error quotes: what it was, and its rewriting along with the error's own header, so that the
 * sender of the quoted packet knows it again.
 */
#ifndef QUOTE_H
#define QUOTE_H

#include "rewrite.h"

#define ICMP_HEADER 8
#define ICMP_CHECKSUM_OFFSET 2

/* As linux/icmp.h has it, which draws in the C library. */
#define ICMP_UNREACHABLE 3
#define ICMP_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP6_INFORMATION 128 /* and above: no errors */

static __always_inline int read_quote4(struct __sk_buff *ctx, struct packet *q)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(ctx, q->l3, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5 ||
	    bpf_ntohs(ip.frag_off) & IP_OFFSET_MASK)
		return 0;
	q->from.low = bpf_ntohl(ip.saddr);
	q->to.low = bpf_ntohl(ip.daddr);
	q->protocol = ip.protocol;
	q->l4 = q->l3 + ip.ihl * 4;
	return 1;
}

/* Without extension headers: a quote of such a packet is left alone. */
static __always_inline int read_quote6(struct __sk_buff *ctx, struct packet *q)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(ctx, q->l3, &ip, sizeof(ip)) || ip.version != 6)
		return 0;
	q->from = address6(&ip.saddr);
	q->to = address6(&ip.daddr);
	q->protocol = ip.nexthdr;
	q->l4 = q->l3 + sizeof(ip);
	return 1;
}

/* Fills `q` with what the ICMP error `p` quotes; false when it is none, or does not quote TCP or UDP. */
static __always_inline int read_quote(struct __sk_buff *ctx, const struct packet *p, struct packet *q)
{
	__be16 ports[2];
	__u8 type;

	if (p->fragment != WHOLE || bpf_skb_load_bytes(ctx, p->l4, &type, sizeof(type)))
		return 0;
	q->family = p->family;
	q->l3 = p->l4 + ICMP_HEADER;
	if (p->family == V4) {
		if (p->protocol != IPPROTO_ICMP ||
		    (type != ICMP_UNREACHABLE && type != ICMP_EXCEEDED && type != ICMP_PARAMETER) ||
		    !read_quote4(ctx, q))
			return 0;
	} else if (p->protocol != IPPROTO_ICMPV6 || type >= ICMP6_INFORMATION || !read_quote6(ctx, q)) {
		return 0;
	}
	if ((q->protocol != IPPROTO_TCP && q->protocol != IPPROTO_UDP) ||
	    bpf_skb_load_bytes(ctx, q->l4, ports, sizeof(ports)))
		return 0;
	q->source_port = bpf_ntohs(ports[0]);
	q->destination_port = bpf_ntohs(ports[1]);
	q->has_ports = 1;
	return 1;
}

/*
 * Rewrites one end of the quote. The quoted TCP or UDP checksum stays: nobody checks it, and most quotes are cut. Non-zero
 * when it cannot be written; drop it then.
 */
static __noinline int rewrite_quote(struct __sk_buff *ctx, const struct packet *p,
				    const struct packet *q, enum end end, const struct endpoint *to)
{
	__u32 sum = p->l4 + ICMP_CHECKSUM_OFFSET;

	if (rewrite_port(ctx, q, end, to->port, sum, 0))
		return -1;
	/* An IPv4 header does not change the sum: its own checksum makes up for its address. */
	if (p->family == V6 && bpf_l4_csum_replace(ctx, sum, 0, address_change(q, end, to), 0))
		return -1;
	return rewrite_address(ctx, q, end, to, 0);
}

/* Rewrites one end of the error itself. */
static __noinline int rewrite_error(struct __sk_buff *ctx, const struct packet *p, enum end end,
				    const struct endpoint *to)
{
	__u32 sum = p->l4 + ICMP_CHECKSUM_OFFSET;

	if (p->family == V4)
		return rewrite_address(ctx, p, end, to, 0);
	/* As in rewrite(): the sum of the whole packet stays. */
	return bpf_l4_csum_replace(ctx, sum, 0, address_change(p, end, to), BPF_F_PSEUDO_HDR) ||
	       rewrite_address(ctx, p, end, to, BPF_F_RECOMPUTE_CSUM);
}

#endif
