/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Longest-prefix match by binary search over the prefix lengths in use.
 *
 * A hit says that no shorter length needs a look, so the host leaves markers on the way to each prefix, each carrying
 * the best shorter match (Waldvogel et al., SIGCOMM 1997). Two lengths in use take at most two lookups and no
 * markers; all 32 of IPv4 take six, all 128 of IPv6 eight.
 */
#ifndef ROUTER_PREFIX_H
#define ROUTER_PREFIX_H

#include "table.h"

static __always_inline __u64 key4(__u32 address, __u32 length, enum side side)
{
	return KEY_USED | (__u64)side << KEY_SIDE_SHIFT | (__u64)length << KEY_LENGTH_SHIFT |
	       masked4(address, length);
}

static __always_inline __u64 meta6(__u32 length, enum side side)
{
	return KEY_USED | (__u64)side << KEY_SIDE_SHIFT | (__u64)length << KEY_LENGTH_SHIFT;
}

/*
 * The value word of the longest prefix that holds `address`, 0 when there is none.
 *
 * Where to go next is read from the plan, not computed: the verifier need not follow what a number can be by now.
 */
static __always_inline __u64 prefix4(const struct plan *plan, void *arena, __u32 address, __u32 side)
{
	__u64 best = plan->zero[V4][side], value;
	__u8 at = !!plan->lengths[V4][side];

	for (int i = 0; i < DEPTH4 && at; i++) {
		const struct step *step = &plan->step4[side][at & (MAX_STEPS4 - 1)];

		at = step->miss;
		if (table4_find(arena, plan->table4, plan->mask4, plan->seed,
				key4(address, step->length, side), &value)) {
			best = value;
			at = step->hit;
		}
	}
	return best;
}

static __always_inline __u64 prefix6(const struct plan *plan, void *arena, struct address address,
				     __u32 side)
{
	__u64 best = plan->zero[V6][side], value;
	__u8 at = !!plan->lengths[V6][side];

	for (int i = 0; i < DEPTH6 && at; i++) {
		const struct step *step = &plan->step6[side][at & (MAX_STEPS6 - 1)];
		struct address key = masked6(address, step->length);

		at = step->miss;
		if (table6_find(arena, plan->table6, plan->mask6, plan->seed, meta6(step->length, side),
				key.high, key.low, &value)) {
			best = value;
			at = step->hit;
		}
	}
	return best;
}

#endif
