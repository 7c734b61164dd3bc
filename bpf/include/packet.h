/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * A packet as parse.h reads it, and what every program counts. Addresses and ports are in host order: tables mask and
 * compare them as numbers.
 */
#ifndef PACKET_H
#define PACKET_H

#include <linux/types.h>
#include <bpf/bpf_helpers.h>

/* An IPv6 address as two numbers; IPv4 as the low one. */
struct address {
	__u64 high;
	__u64 low;
};

enum family { V4 = 0, V6 = 1 };
enum fragment { WHOLE = 0, FIRST_FRAGMENT = 1, LATER_FRAGMENT = 2 };

#define VLAN_TAGGED 0x1000 /* beside the id, so that tag 0 differs from none */

struct packet {
	struct address from;
	struct address to;
	__u32 l3;	/* offset of the IP header */
	__u32 l4;	/* offset of what follows it and its extension headers */
	__u32 length;	/* bytes from the IP header on, as the header says */
	__u32 id;	/* of a fragment */
	__u16 source_port;
	__u16 destination_port;
	__u16 vlan;	/* VLAN_TAGGED | id, 0 when untagged */
	__u8 family;	/* enum family */
	__u8 protocol;
	__u8 ttl;
	__u8 fragment;	/* enum fragment */
	__u8 has_ports;
};

static __always_inline __u32 masked4(__u32 address, __u32 length)
{
	return length ? address & ~0U << ((32 - length) & 31) : 0;
}

static __always_inline struct address masked6(struct address a, __u32 length)
{
	if (length <= 64) {
		a.low = 0;
		a.high = length ? a.high & ~0ULL << ((64 - length) & 63) : 0;
	} else {
		a.low &= ~0ULL << ((128 - length) & 63);
	}
	return a;
}

/* Bytes from the IP header on, as on the wire: a GSO packet counts as its segments. */
struct counter {
	__u64 packets;
	__u64 bytes;
};

#endif
