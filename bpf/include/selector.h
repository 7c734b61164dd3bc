/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Which packets a program of the library is meant for: `match = {...}` of its Lua modules (runtime/src/api/selector.rs). */
#ifndef SELECTOR_H
#define SELECTOR_H

#include "flow.h"
#include "parse.h"

/* What is compared; nothing at all takes every frame, IP or not. */
#define SELECT_FAMILY 0x01 /* IPv4 or IPv6; any other field needs IP */
#define SELECT_FROM 0x02
#define SELECT_TO 0x04
#define SELECT_PROTOCOL 0x08
#define SELECT_SOURCE_PORT 0x10
#define SELECT_DESTINATION_PORT 0x20
#define SELECT_PORT 0x40 /* either of the two */
#define SELECT_MARK 0x80
#define SELECT_VLAN 0x100
#define SELECT_PORTS (SELECT_SOURCE_PORT | SELECT_DESTINATION_PORT | SELECT_PORT)

struct selector {
	struct in6_addr from; /* masked; IPv4 as ::ffff:a.b.c.d */
	struct in6_addr to;
	__u32 fields; /* SELECT_* */
	__u32 mark;
	__u16 source_port;
	__u16 destination_port;
	__u16 port;
	__u16 vlan;
	__u8 family; /* enum family */
	__u8 protocol;
	__u8 from_length;
	__u8 to_length;
};

static __always_inline int within(const struct packet *p, struct address a, const struct in6_addr *prefix,
				  __u32 length)
{
	struct address net = address6(prefix);

	if (p->family == V4)
		return masked4(a.low, length) == (__u32)net.low;
	a = masked6(a, length);
	return a.high == net.high && a.low == net.low;
}

static __always_inline int ports_selected(const struct selector *s, const struct packet *p)
{
	return p->has_ports &&
	       (!(s->fields & SELECT_SOURCE_PORT) || p->source_port == s->source_port) &&
	       (!(s->fields & SELECT_DESTINATION_PORT) || p->destination_port == s->destination_port) &&
	       (!(s->fields & SELECT_PORT) || p->source_port == s->port || p->destination_port == s->port);
}

/* Whether `s` takes this IP packet, whose ports were read. Its mark is not looked at. */
static __always_inline int packet_selected(const struct selector *s, const struct packet *p)
{
	return (!(s->fields & SELECT_FAMILY) || p->family == s->family) &&
	       (!(s->fields & SELECT_FROM) || within(p, p->from, &s->from, s->from_length)) &&
	       (!(s->fields & SELECT_TO) || within(p, p->to, &s->to, s->to_length)) &&
	       (!(s->fields & SELECT_PROTOCOL) || p->protocol == s->protocol) &&
	       (!(s->fields & SELECT_VLAN) || p->vlan == s->vlan) &&
	       (!(s->fields & SELECT_PORTS) || ports_selected(s, p));
}

/*
 * Whether `s` takes this packet, and where it begins: `p` is filled when it is IP. A fragment behind the first has the ports of
 * the first, if that was seen.
 */
static __always_inline int select_packet(const struct selector *s, struct __sk_buff *ctx, struct packet *p,
					 int headerless)
{
	int ip;

	if (s->fields & SELECT_MARK && ctx->mark != s->mark)
		return 0;
	ip = parse_any(ctx, p, headerless);
	if (!(s->fields & ~SELECT_MARK))
		return 1;
	if (!ip)
		return 0;
	if (s->fields & (SELECT_PORTS | SELECT_PROTOCOL))
		read_ports(ctx, p);
	return packet_selected(s, p);
}

/* The same, for who needs nothing but the answer. */
static __always_inline int selected(const struct selector *s, struct __sk_buff *ctx, int headerless)
{
	struct packet p = {};

	if (!(s->fields & ~SELECT_MARK))
		return !(s->fields & SELECT_MARK) || ctx->mark == s->mark;
	return select_packet(s, ctx, &p, headerless);
}

#endif
