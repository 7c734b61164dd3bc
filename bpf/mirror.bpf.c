// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * A copy of some packets to another link, whatever becomes of the original.
 *
 * Maps
 *   mirror     one: which packets, how many of them, where to (struct mirror)
 *   counters   one: what was seen, copied and refused (struct counts)
 *   fragments  ports of first fragments, for those that follow (flow.h)
 *
 * Hooks: `mirror_in` at ingress and `mirror_out` at egress do the same: their names say where among others they stand
 * (lua-stdlib/chain.lua). The `_l3` twins are for devices without a link header.
 *
 * The fate of every packet: the next program, then the kernel, unchanged. A copy is not copied again: two mirrors that
 * face each other would never end.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "include/parse.h"
#include "include/selector.h"

/* TCX_NEXT, NETKIT_NEXT and TC_ACT_UNSPEC are the same: go on with the next program. */
#define NEXT (-1)

/* tc_index of a copy on its way. The policy router's own marks have their highest bit set. */
#define COPY 0x4d69

struct mirror {
	struct selector match;
	__u64 sample;  /* of 2^32 packets that match, on average */
	__u32 ifindex; /* where copies go, in the hook's namespace */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct mirror);
} mirror SEC(".maps");

/* A GSO packet counts as its segments. */
struct counts {
	struct counter seen;	 /* came by */
	struct counter mirrored; /* copied */
	struct counter failed;	 /* the kernel refused to copy: the link is down or gone, or there was no memory */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

static __always_inline void count(struct counter *counter, struct __sk_buff *ctx)
{
	counter->packets += ctx->gso_size && ctx->gso_segs ? ctx->gso_segs : 1;
	counter->bytes += ctx->len;
}

static __always_inline int run(struct __sk_buff *ctx, int headerless)
{
	__u32 zero = 0, before = ctx->tc_index;
	struct mirror *mirrored = bpf_map_lookup_elem(&mirror, &zero);
	struct counts *counts = bpf_map_lookup_elem(&counters, &zero);
	long failed;

	if (!mirrored || !counts || before == COPY)
		return NEXT;
	count(&counts->seen, ctx);
	if (!selected(&mirrored->match, ctx, headerless) || bpf_get_prandom_u32() >= mirrored->sample)
		return NEXT;
	ctx->tc_index = COPY;
	failed = bpf_clone_redirect(ctx, mirrored->ifindex, 0);
	ctx->tc_index = before;
	count(failed ? &counts->failed : &counts->mirrored, ctx);
	return NEXT;
}

SEC("tc") int mirror_in(struct __sk_buff *ctx)
{
	return run(ctx, 0);
}

SEC("tc") int mirror_out(struct __sk_buff *ctx)
{
	return run(ctx, 0);
}

SEC("tc") int mirror_in_l3(struct __sk_buff *ctx)
{
	return run(ctx, 1);
}

SEC("tc") int mirror_out_l3(struct __sk_buff *ctx)
{
	return run(ctx, 1);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
