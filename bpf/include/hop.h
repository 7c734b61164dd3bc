/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * From a verdict to a hop: groups share flows among their hops by buckets that stay where they are while only other
 * hops change (as the kernel's resilient next-hop groups, Documentation/networking/nexthop-group-resilient.rst).
 */
#ifndef ROUTER_HOP_H
#define ROUTER_HOP_H

#include "maps.h"
#include "flow.h"
#include "parse.h"
#include "table.h"

#define NO_HOP 0xffffffffU

/* What to do with a packet. */
struct choice {
	__u32 kind; /* VERDICT_NONE when every hop is down, else PASS, DROP or HOP */
	__u32 hop;  /* index among the set's hops */
	__u32 mirror;
	__u32 mirror_flags;
};

static __always_inline struct hop *hop_at(const struct set *set, __u32 index)
{
	struct hop *hops = cell_at(set->arena, set->plan->hops + (index >> 1));

	return hops ? hops + (index & 1) : 0;
}

static __always_inline int hop_up(const struct set *set, __u32 index)
{
	struct hop *hop = hop_at(set, index);

	return hop && !set->state->down[hop->device & (MAX_DEVICES - 1)];
}

/* The bucket's hop. An idle bucket moves where it is wanted first. */
static __always_inline __u32 bucket_hop(const struct set *set, const struct group *group, __u32 hash)
{
	__u32 index = hash & group->bucket_mask, now = seconds_now();
	struct bucket *buckets =
		cell_at(set->arena, set->plan->buckets + group->first_bucket + (index >> 3));
	struct bucket *bucket;

	if (!buckets)
		return 0;
	bucket = buckets + (index & 7);
	if (bucket->hop != bucket->want && now - bucket->seen > BUCKET_IDLE_SECONDS)
		bucket->hop = bucket->want;
	/* One store a second, not one per packet: processors share this line. */
	if (bucket->seen != now)
		bucket->seen = now;
	return bucket->hop;
}

struct hop_scan {
	struct set set;
	__u32 first;
	__u32 hops;
	__u32 at;
	__u32 found;
};

/* bpf_loop: the next hop of the group, in turn, until one is up. */
static long try_hop(__u32 index, void *context)
{
	struct hop_scan *scan = context;

	if (scan->at >= scan->hops)
		scan->at = 0;
	if (hop_up(&scan->set, scan->first + scan->at)) {
		scan->found = scan->first + scan->at;
		return 1;
	}
	scan->at++;
	return 0;
}

/* A hop of the group that is up; a flow of a hop that is down goes to another until it comes back. */
static __always_inline __u32 group_hop(struct hop_scan *scan, const struct group *group, __u32 hash)
{
	__u32 wanted = bucket_hop(&scan->set, group, hash);

	scan->first = group->first_hop;
	scan->hops = group->hops;
	if (wanted < scan->hops && hop_up(&scan->set, scan->first + wanted))
		return scan->first + wanted;
	scan->at = (hash >> 16) % scan->hops;
	scan->found = NO_HOP;
	bpf_loop(scan->hops, try_hop, scan, 0);
	return scan->found;
}

/*
 * What the verdict of a value word means now, devices being up or down: fills `choice` and returns its kind. A global
 * function, so that the verifier walks it once and not at each call; such a one takes no pointers to maps.
 */
__noinline int choose(__u32 slot, __u64 value, __u32 hash, struct choice *choice)
{
	__u32 verdict = value >> 32, kind = verdict >> VERDICT_KIND_SHIFT;
	__u32 index = verdict & VERDICT_INDEX_MASK;
	struct hop_scan scan;
	struct group *group;

	if (!choice)
		return 0;
	choice->kind = kind;
	choice->hop = index;
	choice->mirror = 0;
	choice->mirror_flags = 0;
	if (kind < VERDICT_HOP)
		return kind;
	if (!set_at(&scan.set, slot))
		return 0;
	if (kind == VERDICT_HOP) {
		if (!hop_up(&scan.set, index))
			choice->kind = VERDICT_NONE;
		return choice->kind;
	}
	group = cell_at(scan.set.arena, scan.set.plan->groups + index);
	choice->kind = VERDICT_NONE;
	if (!group)
		return 0;
	choice->mirror = group->mirror;
	choice->mirror_flags = group->mirror_flags;
	if (!group->hops) {
		choice->kind = group->action;
	} else {
		choice->hop = group_hop(&scan, group, hash);
		if (choice->hop != NO_HOP)
			choice->kind = VERDICT_HOP;
	}
	return choice->kind;
}

#endif
