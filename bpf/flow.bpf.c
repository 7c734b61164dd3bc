// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Accounting by flow: packets, bytes, when first and last seen, the TCP flags of all; and a sample of the packets as records.
 *
 * Maps
 *   settings   which packets, how many of them are sampled
 *   flows      by addresses, ports, protocol and direction, the least recently seen forgotten
 *   totals     all together
 *   samples    records of single packets (struct sample)
 *   fragments  ports of first fragments, for those that follow (flow.h)
 *
 * Hooks: `flow_ingress`, `flow_egress` on tcx or clsact, with or without a link header.
 *
 * The fate of every packet: the next program, unchanged.
 */
#include <linux/bpf.h>
#include <linux/tcp.h>
#include <bpf/bpf_helpers.h>

#include "include/flow.h"
#include "include/selector.h"

#define NEXT (-1)

const volatile __u32 headerless = 0;

enum direction { ingress = 0, egress = 1 };

struct settings {
	struct selector match;
	__u64 sample; /* of 2^32 packets, on average */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct flow_key {
	struct in6_addr from; /* IPv4 as ::ffff:a.b.c.d */
	struct in6_addr to;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 ipv6;
	__u16 direction; /* enum direction */
};

struct flow {
	__u64 packets; /* segments, of a GSO packet */
	__u64 bytes;   /* from the IP header on */
	__u64 first;   /* bpf_ktime_get_ns() */
	__u64 last;
	__u64 flags; /* TCP's, of all packets together */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct totals {
	struct counter counted;
	__u64 sampled;
	__u64 missed; /* samples that found no room */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct totals);
} totals SEC(".maps");

struct sample {
	struct flow_key flow;
	__u64 time;  /* bpf_ktime_get_ns() */
	__u32 bytes; /* from the IP header on */
	__u32 packets;
	__u32 flags;
	__u32 ttl;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
	__type(value, struct sample);
} samples SEC(".maps");

static __always_inline void put_address(struct in6_addr *out, const struct packet *p, struct address a)
{
	out->in6_u.u6_addr32[0] = bpf_htonl(a.high >> 32);
	out->in6_u.u6_addr32[1] = bpf_htonl(a.high);
	out->in6_u.u6_addr32[2] = p->family == V4 ? bpf_htonl(0xffff) : bpf_htonl(a.low >> 32);
	out->in6_u.u6_addr32[3] = bpf_htonl(a.low);
}

static __always_inline __u32 tcp_flags(struct __sk_buff *ctx, const struct packet *p)
{
	__u8 flags = 0;

	if (p->protocol == IPPROTO_TCP && p->fragment != LATER_FRAGMENT)
		bpf_skb_load_bytes(ctx, p->l4 + 13, &flags, sizeof(flags));
	return flags;
}

static __always_inline void account(const struct flow_key *key, const struct counter *measure, __u32 flags, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	if (!flow) {
		struct flow first = {.first = now, .last = now};

		bpf_map_update_elem(&flows, key, &first, BPF_NOEXIST);
		flow = bpf_map_lookup_elem(&flows, key);
		if (!flow)
			return;
	}
	__sync_fetch_and_add(&flow->packets, measure->packets);
	__sync_fetch_and_add(&flow->bytes, measure->bytes);
	flow->last = now;
	if ((flow->flags & flags) != flags)
		__sync_fetch_and_or(&flow->flags, flags);
}

static __always_inline void sample(const struct flow_key *key, const struct packet *p,
				   const struct counter *measure, __u32 flags, __u64 now, struct totals *total)
{
	struct sample *record = bpf_ringbuf_reserve(&samples, sizeof(*record), 0);

	if (!record) {
		total->missed++;
		return;
	}
	total->sampled++;
	record->flow = *key;
	record->time = now;
	record->bytes = measure->bytes;
	record->packets = measure->packets;
	record->flags = flags;
	record->ttl = p->ttl;
	bpf_ringbuf_submit(record, 0);
}

static __always_inline int run(struct __sk_buff *ctx, enum direction direction)
{
	struct packet p = {};
	struct flow_key key = {};
	__u32 zero = 0, flags;
	struct settings *chosen = bpf_map_lookup_elem(&settings, &zero);
	struct totals *total = bpf_map_lookup_elem(&totals, &zero);
	struct counter measure;
	__u64 now;

	if (!chosen || !total || !select_packet(&chosen->match, ctx, &p, headerless) || !p.l4)
		return NEXT;
	if (!(chosen->match.fields & (SELECT_PORTS | SELECT_PROTOCOL)))
		read_ports(ctx, &p);
	put_address(&key.from, &p, p.from);
	put_address(&key.to, &p, p.to);
	key.sport = p.source_port;
	key.dport = p.destination_port;
	key.proto = p.protocol;
	key.ipv6 = p.family == V6;
	key.direction = direction;
	measure = measured(ctx, &p);
	flags = tcp_flags(ctx, &p);
	now = bpf_ktime_get_ns();
	account(&key, &measure, flags, now);
	total->counted.packets += measure.packets;
	total->counted.bytes += measure.bytes;
	if (chosen->sample && bpf_get_prandom_u32() < chosen->sample)
		sample(&key, &p, &measure, flags, now, total);
	return NEXT;
}

SEC("tc") int flow_ingress(struct __sk_buff *ctx)
{
	return run(ctx, ingress);
}

SEC("tc") int flow_egress(struct __sk_buff *ctx)
{
	return run(ctx, egress);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
