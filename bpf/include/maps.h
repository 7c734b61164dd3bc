/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* The maps that every program of the policy router shares. */
#ifndef ROUTER_MAPS_H
#define ROUTER_MAPS_H

#include "router_abi.h"

/* Which set is live, the plans of both, and which devices are down. Mapped by the host. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct state);
} state SEC(".maps");

/* The arenas of both sets and their counters: arrays of any size, made and mapped by the host. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SETS_ENTRIES);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_ARRAY);
			__uint(max_entries, 1);
			__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
			__uint(key_size, sizeof(__u32));
			__uint(value_size, CELL_BYTES);
		});
} sets SEC(".maps");

/* The set that packets read now. Taken once per packet, so that none sees half of two. */
struct set {
	struct state *state;
	const struct plan *plan;
	void *arena;
	__u32 live;
};

/* The set in `slot`; for whoever took it before. */
static __always_inline int set_at(struct set *set, __u32 slot)
{
	__u32 zero = 0, key = slot;

	set->state = bpf_map_lookup_elem(&state, &zero);
	if (!set->state)
		return 0;
	set->arena = bpf_map_lookup_elem(&sets, &key);
	/* Bounded here: what went through the stack as a key has no bounds any more. */
	barrier_var(slot);
	set->live = slot & 1;
	set->plan = &set->state->plan[set->live];
	return set->arena != 0;
}

static __always_inline int take_set(struct set *set)
{
	__u32 zero = 0;
	struct state *shared = bpf_map_lookup_elem(&state, &zero);

	return shared && set_at(set, *(volatile __u32 *)&shared->live);
}

#endif
