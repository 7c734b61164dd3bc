/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Header parsing, once for every program: from Ethernet, VLAN tags and header-less devices to addresses, protocol and
 * ports.
 *
 * Include after bpf_helpers.h. Addresses and ports come in host order: the tables mask and compare them as numbers.
 */
#ifndef PARSE_H
#define PARSE_H

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <stddef.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "packet.h"

#define IP_MORE_FRAGMENTS 0x2000
#define IP_OFFSET_MASK 0x1fff
#define IP6_MORE_FRAGMENTS 0x0001
#define IP6_OFFSET_MASK 0xfff8
#define EXTENSION_HEADERS 8 /* more than that is left to the kernel */
#define PROTOCOL_NONE 59    /* IPv6 "no next header" */

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP ||
	       protocol == IPPROTO_UDPLITE || protocol == IPPROTO_DCCP;
}

/* Destinations that no policy takes from the kernel: this network, loopback, link-local, multicast, broadcast. */
static __always_inline int stays4(__u32 to)
{
	return to >> 24 == 0 || to >> 24 == 127 || to >> 16 == 0xa9fe ||
	       to >> 28 == 0xe || to == 0xffffffff;
}

/* Unspecified, loopback, link-local, multicast. */
static __always_inline int stays6(struct address to)
{
	return to.high >> 56 == 0xff || to.high >> 54 == 0x3fa || (!to.high && to.low <= 1);
}

static __always_inline struct address address6(const struct in6_addr *a)
{
	struct address out = {
		.high = (__u64)bpf_ntohl(a->in6_u.u6_addr32[0]) << 32 | bpf_ntohl(a->in6_u.u6_addr32[1]),
		.low = (__u64)bpf_ntohl(a->in6_u.u6_addr32[2]) << 32 | bpf_ntohl(a->in6_u.u6_addr32[3]),
	};

	return out;
}

/* Makes `bytes` of the packet directly readable. */
static __always_inline int linear(struct __sk_buff *ctx, __u32 bytes)
{
	return (void *)(long)ctx->data + bytes <= (void *)(long)ctx->data_end ||
	       !bpf_skb_pull_data(ctx, bytes);
}

/* The tag, and the EtherType behind it. False for what is not IP, and for a second tag. */
static __always_inline int parse_link(struct __sk_buff *ctx, struct packet *p, int headerless)
{
	__be16 type = ctx->protocol;

	p->l3 = headerless ? 0 : ETH_HLEN;
	if (ctx->vlan_present)
		p->vlan = VLAN_TAGGED | (ctx->vlan_tci & 0xfff);
	if (!headerless && (type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD))) {
		__be16 tag[2];

		if (p->vlan || bpf_skb_load_bytes(ctx, ETH_HLEN, tag, sizeof(tag)))
			return 0;
		p->vlan = VLAN_TAGGED | (bpf_ntohs(tag[0]) & 0xfff);
		type = tag[1];
		p->l3 += sizeof(tag);
	}
	if (type == bpf_htons(ETH_P_IP))
		p->family = V4;
	else if (type == bpf_htons(ETH_P_IPV6))
		p->family = V6;
	else
		return 0;
	return 1;
}

static __always_inline int read4(struct __sk_buff *ctx, struct packet *p)
{
	struct iphdr *ip;
	__u16 offset;

	if (!linear(ctx, p->l3 + sizeof(*ip)))
		return 0;
	ip = (void *)(long)ctx->data + p->l3;
	if ((void *)(ip + 1) > (void *)(long)ctx->data_end || ip->version != 4 || ip->ihl < 5)
		return 0;
	p->from.low = bpf_ntohl(ip->saddr);
	p->to.low = bpf_ntohl(ip->daddr);
	p->protocol = ip->protocol;
	p->ttl = ip->ttl;
	p->length = bpf_ntohs(ip->tot_len);
	p->l4 = p->l3 + ip->ihl * 4;
	p->id = ip->id;
	offset = bpf_ntohs(ip->frag_off);
	if (offset & IP_OFFSET_MASK)
		p->fragment = LATER_FRAGMENT;
	else if (offset & IP_MORE_FRAGMENTS)
		p->fragment = FIRST_FRAGMENT;
	return 1;
}

/* Walks the extension headers. False when they do not end within EXTENSION_HEADERS, or the packet. */
static __always_inline int walk_extensions(struct __sk_buff *ctx, struct packet *p)
{
	for (int i = 0; i < EXTENSION_HEADERS; i++) {
		struct {
			__u8 next;
			__u8 length;
			__be16 offset;
			__be32 id;
		} header;
		__u8 protocol = p->protocol;

		if (protocol != IPPROTO_HOPOPTS && protocol != IPPROTO_ROUTING &&
		    protocol != IPPROTO_DSTOPTS && protocol != IPPROTO_FRAGMENT && protocol != IPPROTO_AH)
			return 1;
		/* Beyond the first fragment only the fragment header itself is there to read. */
		if (p->fragment == LATER_FRAGMENT)
			return 1;
		if (bpf_skb_load_bytes(ctx, p->l4, &header, sizeof(header)))
			return 0;
		p->protocol = header.next;
		if (protocol == IPPROTO_FRAGMENT) {
			__u16 offset = bpf_ntohs(header.offset);

			p->id = header.id;
			if (offset & IP6_OFFSET_MASK)
				p->fragment = LATER_FRAGMENT;
			else if (offset & IP6_MORE_FRAGMENTS)
				p->fragment = FIRST_FRAGMENT;
			p->l4 += 8;
		} else if (protocol == IPPROTO_AH) {
			p->l4 += (header.length + 2) * 4;
		} else {
			p->l4 += (header.length + 1) * 8;
		}
	}
	return 0;
}

/* Neighbour discovery: ICMPv6 133..137, always sent with hop limit 255 (RFC 4861). */
static __always_inline int is_discovery(struct __sk_buff *ctx, const struct packet *p)
{
	__u8 type;

	return p->protocol == IPPROTO_ICMPV6 && p->ttl == 255 && p->fragment == WHOLE &&
	       !bpf_skb_load_bytes(ctx, p->l4, &type, sizeof(type)) && type >= 133 && type <= 137;
}

/* Without its extension headers. */
static __always_inline int read6(struct __sk_buff *ctx, struct packet *p)
{
	struct ipv6hdr *ip;

	if (!linear(ctx, p->l3 + sizeof(*ip)))
		return 0;
	ip = (void *)(long)ctx->data + p->l3;
	if ((void *)(ip + 1) > (void *)(long)ctx->data_end || ip->version != 6)
		return 0;
	p->from = address6(&ip->saddr);
	p->to = address6(&ip->daddr);
	p->protocol = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->length = bpf_ntohs(ip->payload_len) + sizeof(*ip);
	p->l4 = p->l3 + sizeof(*ip);
	return 1;
}

/* Fills `p`; false for what always stays with the kernel. */
static __always_inline int parse(struct __sk_buff *ctx, struct packet *p, int headerless)
{
	__u32 kind = ctx->pkt_type;

	if (kind == PACKET_BROADCAST || kind == PACKET_MULTICAST || kind == PACKET_OTHERHOST)
		return 0;
	if (!parse_link(ctx, p, headerless))
		return 0;
	if (p->family == V4)
		return read4(ctx, p) && !stays4(p->to.low);
	return read6(ctx, p) && !stays6(p->to) && walk_extensions(ctx, p) && !is_discovery(ctx, p);
}

/* As parse(), but any IP packet will do. */
static __always_inline int parse_any(struct __sk_buff *ctx, struct packet *p, int headerless)
{
	if (!parse_link(ctx, p, headerless))
		return 0;
	return p->family == V4 ? read4(ctx, p) : read6(ctx, p) && walk_extensions(ctx, p);
}

/* Bytes on the wire from the IP header on, and packets: a GSO packet as the segments it will be. */
static __always_inline struct counter measured(struct __sk_buff *ctx, const struct packet *p)
{
	struct counter c = {.packets = 1, .bytes = ctx->len - p->l3};
	__u32 headers = p->l4 - p->l3, segment = ctx->gso_size;

	if (!segment)
		return c;
	if (p->protocol == IPPROTO_TCP) {
		__u8 offset = 0;

		bpf_skb_load_bytes(ctx, p->l4 + 12, &offset, sizeof(offset));
		headers += (offset >> 4) * 4;
	} else {
		headers += 8;
	}
	c.packets = ctx->gso_segs;
	/* A packet from a virtual machine may come without the number. */
	if (!c.packets)
		c.packets = c.bytes > headers ? (c.bytes - headers + segment - 1) / segment : 1;
	c.bytes += (c.packets - 1) * headers;
	return c;
}

#endif
