/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * A token bucket in one word: the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). Any
 * processor takes from it by one compare-and-swap, and nobody has to fill it.
 */
#ifndef BUCKET_H
#define BUCKET_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#define BUCKET_SHIFT 16	/* costs are in nanoseconds << BUCKET_SHIFT */
#define BUCKET_TRIES 4	/* against other processors; then the packet goes free */

struct rate {
	__u64 cost;  /* of one packet or byte: nanoseconds << BUCKET_SHIFT until it is there again */
	__u64 burst; /* nanoseconds until an empty bucket is full */
};

/* Takes `units`; false when the bucket does not hold them. `full_at` is the bucket. */
static __always_inline int bucket_take(__u64 *full_at, const struct rate *rate, __u64 units, __u64 now)
{
	__u64 cost = units * rate->cost >> BUCKET_SHIFT;

#pragma unroll
	for (int i = 0; i < BUCKET_TRIES; i++) {
		__u64 before = *(volatile __u64 *)full_at;
		__u64 after = (before > now ? before : now) + cost;

		if (after - now > rate->burst)
			return 0;
		if (__sync_val_compare_and_swap(full_at, before, after) == before)
			return 1;
	}
	return 1;
}

#endif
