/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* What makes a packet part of a flow: its ports, also of fragments behind the first, and a hash of the five fields. */
#ifndef FLOW_H
#define FLOW_H

#include "hash.h"
#include "parse.h"

struct fragment_key {
	__u64 from[2];
	__u64 to[2];
	__u32 id;
	__u32 protocol;
};

struct first_fragment {
	__u32 ports; /* source << 16 | destination */
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct fragment_key);
	__type(value, struct first_fragment);
} fragments SEC(".maps");

/*
 * Ports, or those of the first fragment. Not inlined, for its stack: all frames of a chain of calls have 512 bytes, and
 * Linux 6.1 rounds each up to 32.
 */
static __noinline int read_ports(struct __sk_buff *ctx, struct packet *p)
{
	struct fragment_key key = {
		.from = {p->from.high, p->from.low},
		.to = {p->to.high, p->to.low},
		.id = p->id,
	};
	struct first_fragment *first;
	__be16 ports[2];

	/* An IPv6 fragment behind the first cannot see the last header's protocol: not part of the key there. */
	if (p->family == V4)
		key.protocol = p->protocol;
	if (p->fragment == LATER_FRAGMENT) {
		first = bpf_map_lookup_elem(&fragments, &key);
		if (!first)
			return 0;
		p->protocol = first->protocol;
		p->source_port = first->ports >> 16;
		p->destination_port = first->ports;
		p->has_ports = has_ports(p->protocol);
		return 0;
	}
	if (has_ports(p->protocol) && !bpf_skb_load_bytes(ctx, p->l4, ports, sizeof(ports))) {
		p->source_port = bpf_ntohs(ports[0]);
		p->destination_port = bpf_ntohs(ports[1]);
		p->has_ports = 1;
	}
	if (p->fragment == FIRST_FRAGMENT) {
		struct first_fragment value = {
			.ports = (__u32)p->source_port << 16 | p->destination_port,
			.protocol = p->protocol,
		};

		bpf_map_update_elem(&fragments, &key, &value, BPF_ANY);
	}
	return 0;
}

/* The same for every packet of a flow, in one direction. flow_hash() of table.rs tells `explain` the same. */
static __always_inline __u32 flow_hash(const struct packet *p)
{
	return hash6((__u64)p->protocol << 32 | (__u32)p->source_port << 16 | p->destination_port,
		     p->from.high ^ p->from.low * MIX_1, p->to.high ^ p->to.low * MIX_2, 0);
}

static __always_inline __u32 seconds_now(void)
{
	return bpf_ktime_get_coarse_ns() / 1000000000;
}

#endif
