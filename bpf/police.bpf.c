// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Rate limits: packets that match take tokens from a bucket, one for all or one for each of what they are told apart by; what
 * finds it empty is dropped.
 *
 * Maps
 *   police     which packets, how fast
 *   bucket     the bucket of all
 *   buckets    the others, the least recently used forgotten
 *   counters   what conformed and what exceeded
 *   fragments  ports of first fragments, for those that follow (flow.h)
 *   stages     the programs behind, of XDP (stages.h)
 *
 * Hooks: `police_ingress`, `police_egress` on tcx or clsact, with or without a link header; `police` as a stage of `dispatch`.
 *
 * The fate of every packet
 *   not IP, or does not match      next program
 *   the bucket holds enough        next program
 *   it does not                    dropped
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "include/bucket.h"
#include "include/frame.h"
#include "include/selector.h"
#include "include/stages.h"

#define NEXT (-1)

/* What buckets are told apart by; nothing is one for all. */
#define PER_SOURCE 1
#define PER_DESTINATION 2
#define PER_PORTS 4 /* and protocol */

const volatile __u32 per = 0;
const volatile __u32 by_packets = 0; /* tokens are packets, not bytes */
const volatile __u32 headerless = 0;

struct police {
	struct selector match;
	struct rate rate;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct police);
} police SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bucket SEC(".maps");

/* Fields that `per` does not name are 0. IPv4 as ::ffff:a.b.c.d. */
struct bucket_key {
	struct address from;
	struct address to;
	__u32 ports;
	__u32 protocol;
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct bucket_key);
	__type(value, __u64);
} buckets SEC(".maps");

struct counts {
	struct counter conformed;
	struct counter exceeded;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

static __always_inline struct address mapped(const struct packet *p, struct address a)
{
	if (p->family == V4)
		a.low |= 0xffffULL << 32;
	return a;
}

/* The packet's bucket; one that is not there yet is full. */
static __always_inline __u64 *bucket_of(const struct packet *p, __u64 now)
{
	struct bucket_key key = {};
	__u32 zero = 0;
	__u64 *found;

	if (!per)
		return bpf_map_lookup_elem(&bucket, &zero);
	if (per & PER_SOURCE)
		key.from = mapped(p, p->from);
	if (per & PER_DESTINATION)
		key.to = mapped(p, p->to);
	if (per & PER_PORTS) {
		key.ports = (__u32)p->source_port << 16 | p->destination_port;
		key.protocol = p->protocol;
	}
	found = bpf_map_lookup_elem(&buckets, &key);
	if (found)
		return found;
	bpf_map_update_elem(&buckets, &key, &now, BPF_NOEXIST);
	return bpf_map_lookup_elem(&buckets, &key);
}

/* Whether the packet may pass; counts it. */
static __always_inline int conforms(struct police *settings, const struct packet *p, const struct counter *measure)
{
	struct rate rate = {
		.cost = *(volatile __u64 *)&settings->rate.cost,
		.burst = *(volatile __u64 *)&settings->rate.burst,
	};
	__u64 now = bpf_ktime_get_ns(), *full_at = bucket_of(p, now);
	__u32 zero = 0;
	struct counts *counts = bpf_map_lookup_elem(&counters, &zero);
	int ok;

	if (!full_at || !counts)
		return 1;
	ok = bucket_take(full_at, &rate, by_packets ? measure->packets : measure->bytes, now);
	if (ok) {
		counts->conformed.packets += measure->packets;
		counts->conformed.bytes += measure->bytes;
	} else {
		counts->exceeded.packets += measure->packets;
		counts->exceeded.bytes += measure->bytes;
	}
	return ok;
}

static __always_inline int run(struct __sk_buff *ctx)
{
	struct packet p = {};
	__u32 zero = 0;
	struct police *settings = bpf_map_lookup_elem(&police, &zero);
	struct counter measure;

	if (!settings || !select_packet(&settings->match, ctx, &p, headerless) || !p.l4)
		return NEXT;
	if (per & PER_PORTS)
		read_ports(ctx, &p);
	measure = measured(ctx, &p);
	/* As tc counts: with the link header. */
	measure.bytes += measure.packets * p.l3;
	return conforms(settings, &p, &measure) ? NEXT : TC_ACT_SHOT;
}

SEC("tc") int police_ingress(struct __sk_buff *ctx)
{
	return run(ctx);
}

SEC("tc") int police_egress(struct __sk_buff *ctx)
{
	return run(ctx);
}

SEC("xdp.frags") int police_xdp(struct xdp_md *ctx)
{
	struct packet p = {};
	__u32 zero = 0;
	struct police *settings = bpf_map_lookup_elem(&police, &zero);
	struct counter measure = {.packets = 1};

	if (!settings || !parse_frame(ctx, &p))
		return next_stage(ctx);
	frame_ports(ctx, &p);
	if (!packet_selected(&settings->match, &p))
		return next_stage(ctx);
	measure.bytes = p.length + p.l3;
	return conforms(settings, &p, &measure) ? next_stage(ctx) : XDP_DROP;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
