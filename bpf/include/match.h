/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Which policy takes a packet: conditional ones by rank, then source, then destination, then the default. A policy all
 * of whose hops are down does not match.
 */
#ifndef ROUTER_MATCH_H
#define ROUTER_MATCH_H

#include "hop.h"
#include "prefix.h"

/* A search in progress; what bpf_loop's callbacks share. */
struct search {
	struct set set;
	const struct packet *packet;
	__u32 mark;
	__u32 hash;
	__u64 value;   /* found so far, 0 for nothing */
	__u64 rank[2]; /* of it: priority and specificity, order */
	struct choice choice;
	__u32 skipped; /* policies whose hops are all down */
	__u32 side;    /* of a walk over prefixes */
};

static __always_inline int outranks(const __u64 a[2], __u64 high, __u64 low)
{
	return a[0] < high || (a[0] == high && a[1] <= low);
}

static __always_inline void condition_key(struct condition *key, const struct shape *shape,
					  const struct packet *p, __u32 mark)
{
	key->meta = KEY_USED | (__u64)p->vlan << CONDITION_VLAN_SHIFT |
		    (__u64)shape->id << CONDITION_SHAPE_SHIFT;
	if (shape->fields & SHAPE_PROTOCOL)
		key->meta |= p->protocol;
	if (shape->fields & SHAPE_SOURCE_PORT)
		key->fields |= (__u64)p->source_port << 16;
	if (shape->fields & SHAPE_DESTINATION_PORT)
		key->fields |= p->destination_port;
	if (shape->fields & SHAPE_MARK)
		key->fields |= (__u64)mark << 32;
	if (p->family == V4) {
		key->from[1] = masked4(p->from.low, shape->from_length);
		key->to[1] = masked4(p->to.low, shape->to_length);
	} else {
		struct address from = masked6(p->from, shape->from_length);
		struct address to = masked6(p->to, shape->to_length);

		key->from[0] = from.high;
		key->from[1] = from.low;
		key->to[0] = to.high;
		key->to[1] = to.low;
	}
}

/* bpf_loop: one shape, best first. */
static long match_shape(__u32 index, void *context)
{
	struct search *search = context;
	const struct packet *p = search->packet;
	const struct plan *plan = search->set.plan;
	const struct shape *shape = &plan->shape[p->family & 1][index & (MAX_SHAPES - 1)];
	struct condition key = {}, *entry;
	struct choice choice;
	__u64 high, low, value;

	if (search->value &&
	    outranks(search->rank, (__u64)shape->priority << 32 | shape->specificity, shape->order))
		return 1;
	if (shape->fields & (SHAPE_SOURCE_PORT | SHAPE_DESTINATION_PORT) && !p->has_ports)
		return 0;
	condition_key(&key, shape, p, search->mark);
	entry = condition_find(search->set.arena, plan->conditions, plan->condition_mask, plan->seed, &key);
	if (!entry)
		return 0;
	value = *(volatile __u64 *)&entry->value;
	high = entry->rank >> 32 << 32 | shape->specificity;
	low = entry->rank & 0xffffffff;
	if (search->value && outranks(search->rank, high, low))
		return 0;
	if (!choose(search->set.live, value, search->hash, &choice)) {
		search->skipped++;
		return 0;
	}
	search->value = value;
	search->rank[0] = high;
	search->rank[1] = low;
	search->choice = choice;
	return 0;
}

/*
 * The value of the policy with exactly this prefix length, 0 when there is none. Global functions, this and those below,
 * for the verifier's sake as choose().
 */
__noinline __u64 exact4(__u32 slot, __u32 address, __u32 length, __u32 side)
{
	__u64 value = 0;
	struct set set;

	if (!set_at(&set, slot))
		return 0;
	table4_find(set.arena, set.plan->table4, set.plan->mask4, set.plan->seed,
		    key4(address, length, side & 1), &value);
	return value & VALUE_OWN ? value : 0;
}

__noinline __u64 exact6(__u32 slot, __u64 high, __u64 low, __u32 length, __u32 side)
{
	struct address key = masked6((struct address){high, low}, length);
	__u64 value = 0;
	struct set set;

	if (!set_at(&set, slot))
		return 0;
	table6_find(set.arena, set.plan->table6, set.plan->mask6, set.plan->seed,
		    meta6(length, side & 1), key.high, key.low, &value);
	return value & VALUE_OWN ? value : 0;
}

/* bpf_loop: one prefix length, longest first; only when the longest match cannot be used. */
static long walk_prefix(__u32 index, void *context)
{
	struct search *search = context;
	const struct plan *plan = search->set.plan;
	const struct packet *p = search->packet;
	__u32 side = search->side & 1, family = p->family & 1, slot = search->set.live;
	__u32 lengths = plan->lengths[family][side], place = lengths - 1 - index;
	const struct address *address = side == SOURCE ? &p->from : &p->to;
	__u64 value;

	if (index > lengths)
		return 1;
	if (index == lengths)
		value = plan->zero[family][side];
	else if (family == V4)
		value = exact4(slot, address->low, plan->length4[side][place & 31], side);
	else
		value = exact6(slot, address->high, address->low, plan->length6[side][place & 127], side);
	if (!value)
		return 0;
	if (!choose(search->set.live, value, search->hash, &search->choice)) {
		search->skipped++;
		return 0;
	}
	search->value = value;
	return 1;
}

/* The longest match. */
__noinline __u64 longest4(__u32 slot, __u32 address, __u32 side)
{
	struct set set;

	return set_at(&set, slot) ? prefix4(set.plan, set.arena, address, side & 1) : 0;
}

__noinline __u64 longest6(__u32 slot, __u64 high, __u64 low, __u32 side)
{
	struct address address = {high, low};
	struct set set;

	return set_at(&set, slot) ? prefix6(set.plan, set.arena, address, side & 1) : 0;
}

static __always_inline void match_prefix(struct search *search, enum side side)
{
	const struct address *address = side == SOURCE ? &search->packet->from : &search->packet->to;
	__u32 slot = search->set.live;
	__u64 value;

	if (search->packet->family == V4)
		value = longest4(slot, address->low, side);
	else
		value = longest6(slot, address->high, address->low, side);
	if (!(value >> 32))
		return;
	if (choose(search->set.live, value, search->hash, &search->choice)) {
		search->value = value;
		return;
	}
	search->side = side;
	bpf_loop(129 + 1, walk_prefix, search, 0);
}

/* Fills search->value and ->choice; value 0 when no policy matches. */
static __noinline int match(struct search *search)
{
	const struct packet *p = search->packet;
	const struct plan *plan = search->set.plan;
	__u32 family = p->family & 1;

	/*
	 * Before Linux 6.7 the verifier takes a callback of bpf_loop for called once, with what it knows at the first call,
	 * and removes as dead what only a later one reaches: so it must not know that nothing was found yet.
	 */
	search->value = *(volatile __u64 *)&search->set.state->nothing;
	search->rank[0] = search->value;
	search->rank[1] = search->value;
	if (plan->shapes[family])
		bpf_loop(plan->shapes[family], match_shape, search, 0);
	/* A tagged frame is only for policies that name its tag, and these are conditional. */
	if (search->value || p->vlan)
		return 0;
	match_prefix(search, SOURCE);
	if (!search->value)
		match_prefix(search, DESTINATION);
	if (!search->value && plan->fallback[family]) {
		if (choose(search->set.live, plan->fallback[family], search->hash, &search->choice))
			search->value = plan->fallback[family];
		else
			search->skipped++;
	}
	return 0;
}

#endif
