/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What parse.h does for packets of the stack, for frames of XDP: read in place, since nothing has read them before. */
#ifndef FRAME_H
#define FRAME_H

#include "parse.h"

#define FRAME_TAGS 2	    /* VLAN tags that are looked behind */
#define FRAME_REACH 512	    /* bytes from the frame's start within which headers begin */
#define FRAME_EXTENSIONS 4  /* IPv6 headers between address and payload */

/* `bytes` of the frame at an offset, or 0 when it ends before. */
static __always_inline void *frame_at(struct xdp_md *ctx, __u32 offset, __u32 bytes)
{
	void *at = (void *)(long)ctx->data + (offset & (FRAME_REACH - 1));

	if (offset >= FRAME_REACH || at + bytes > (void *)(long)ctx->data_end)
		return 0;
	return at;
}

/* Behind the tags; the outermost is kept. False for what is not IP. */
static __always_inline int frame_link(struct xdp_md *ctx, struct packet *p)
{
	struct ethhdr *eth = frame_at(ctx, 0, sizeof(*eth));
	__be16 type, *tag;

	if (!eth)
		return 0;
	type = eth->h_proto;
	p->l3 = sizeof(*eth);
#pragma unroll
	for (int i = 0; i < FRAME_TAGS; i++) {
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_8021AD))
			break;
		tag = frame_at(ctx, p->l3, 4);
		if (!tag)
			return 0;
		if (!p->vlan)
			p->vlan = VLAN_TAGGED | (bpf_ntohs(tag[0]) & 0xfff);
		type = tag[1];
		p->l3 += 4;
	}
	p->family = type == bpf_htons(ETH_P_IP) ? V4 : V6;
	return type == bpf_htons(ETH_P_IP) || type == bpf_htons(ETH_P_IPV6);
}

/* Addresses and what stands beside them; `l4` is behind the IP header itself. False for what is not IP. */
static __always_inline int parse_frame(struct xdp_md *ctx, struct packet *p)
{
	struct ipv6hdr *ip6;
	struct iphdr *ip4;
	__u16 offset;

	if (!frame_link(ctx, p))
		return 0;
	if (p->family == V6) {
		ip6 = frame_at(ctx, p->l3, sizeof(*ip6));
		if (!ip6 || ip6->version != 6)
			return 0;
		p->from = address6(&ip6->saddr);
		p->to = address6(&ip6->daddr);
		p->protocol = ip6->nexthdr;
		p->ttl = ip6->hop_limit;
		p->length = bpf_ntohs(ip6->payload_len) + sizeof(*ip6);
		p->l4 = p->l3 + sizeof(*ip6);
		return 1;
	}
	ip4 = frame_at(ctx, p->l3, sizeof(*ip4));
	if (!ip4 || ip4->version != 4 || ip4->ihl < 5)
		return 0;
	p->from.low = bpf_ntohl(ip4->saddr);
	p->to.low = bpf_ntohl(ip4->daddr);
	p->protocol = ip4->protocol;
	p->ttl = ip4->ttl;
	p->length = bpf_ntohs(ip4->tot_len);
	p->l4 = p->l3 + ip4->ihl * 4;
	offset = bpf_ntohs(ip4->frag_off);
	if (offset & IP_OFFSET_MASK)
		p->fragment = LATER_FRAGMENT;
	else if (offset & IP_MORE_FRAGMENTS)
		p->fragment = FIRST_FRAGMENT;
	return 1;
}

/* Looks behind IPv6's further headers, of which the last says the protocol. */
static __always_inline void frame_extensions(struct xdp_md *ctx, struct packet *p)
{
#pragma unroll
	for (int i = 0; i < FRAME_EXTENSIONS; i++) {
		__u8 protocol = p->protocol, *header;

		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING &&
		    protocol != IPPROTO_DSTOPTS && protocol != IPPROTO_FRAGMENT)
			return;
		header = frame_at(ctx, p->l4, 8);
		if (!header || p->fragment == LATER_FRAGMENT)
			return;
		p->protocol = header[0];
		if (protocol == IPPROTO_FRAGMENT) {
			__u16 offset = header[2] << 8 | header[3];

			if (offset & IP6_OFFSET_MASK)
				p->fragment = LATER_FRAGMENT;
			else if (offset & IP6_MORE_FRAGMENTS)
				p->fragment = FIRST_FRAGMENT;
			p->l4 += 8;
		} else {
			p->l4 += (header[1] + 1) * 8;
		}
	}
}

/* Protocol and ports, where the frame itself has them. */
static __always_inline void frame_ports(struct xdp_md *ctx, struct packet *p)
{
	__be16 *ports;

	if (p->family == V6)
		frame_extensions(ctx, p);
	if (p->fragment == LATER_FRAGMENT || !has_ports(p->protocol))
		return;
	ports = frame_at(ctx, p->l4, 4);
	if (!ports)
		return;
	p->source_port = bpf_ntohs(ports[0]);
	p->destination_port = bpf_ntohs(ports[1]);
	p->has_ports = 1;
}

/* Neighbour discovery: ICMPv6 133..137, always sent with hop limit 255 (RFC 4861). */
static __always_inline int frame_is_discovery(struct xdp_md *ctx, const struct packet *p)
{
	__u8 *type;

	if (p->family != V6 || p->protocol != IPPROTO_ICMPV6 || p->ttl != 255)
		return 0;
	type = frame_at(ctx, p->l4, 1);
	return type && *type >= 133 && *type <= 137;
}

#endif
