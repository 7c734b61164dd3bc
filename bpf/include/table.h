/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * Exact-match tables of policies in an arena: open addressing over 64-byte cells.
 *
 * The kernel's hash map follows two pointers into cold memory for each lookup; here one cache line holds four IPv4
 * entries, so that a lookup in a million policies waits for memory once. The host fills the tables through a mapping
 * and may add entries while packets read: an entry's key is stored last, and a removed entry is never reused.
 */
#ifndef ROUTER_TABLE_H
#define ROUTER_TABLE_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "hash.h"
#include "router_abi.h"

static __always_inline void *cell_at(void *arena, __u32 index)
{
	return bpf_map_lookup_elem(arena, &index);
}

static __always_inline __u32 hash_condition(const struct condition *key, __u64 seed)
{
	return hash6(key->meta ^ key->fields * MIX_2, key->from[0] ^ key->to[0] * MIX_1,
		     key->from[1] ^ (key->to[1] << 32 | key->to[1] >> 32) * MIX_2, seed);
}

/* The entry's value word; false when there is none. */
static __always_inline int table4_find(void *arena, __u32 base, __u32 mask, __u64 seed, __u64 key,
				       __u64 *value)
{
	__u32 index = hash4(key, seed);

	for (int i = 0; i < PROBE_LIMIT; i++, index++) {
		struct cell4 *cell = cell_at(arena, base + (index & mask));

		if (!cell)
			return 0;
#pragma unroll
		for (int j = 0; j < 4; j++) {
			if (cell->key[j] == key) {
				*value = *(volatile __u64 *)&cell->value[j];
				return 1;
			}
		}
		/* Cells fill from the left: an unused last place means nothing went on to the next cell. */
		if (!cell->key[3])
			return 0;
	}
	return 0;
}

static __always_inline int table6_find(void *arena, __u32 base, __u32 mask, __u64 seed, __u64 meta,
				       __u64 high, __u64 low, __u64 *value)
{
	__u32 index = hash6(meta, high, low, seed);

	for (int i = 0; i < PROBE_LIMIT; i++, index++) {
		struct cell6 *cell = cell_at(arena, base + (index & mask));

		if (!cell)
			return 0;
#pragma unroll
		for (int j = 0; j < 2; j++) {
			struct entry6 *entry = &cell->entry[j];

			if (entry->meta == meta && entry->high == high && entry->low == low) {
				*value = *(volatile __u64 *)&entry->value;
				return 1;
			}
		}
		if (!cell->entry[1].meta)
			return 0;
	}
	return 0;
}

static __always_inline struct condition *condition_find(void *arena, __u32 base, __u32 mask,
							__u64 seed, const struct condition *key)
{
	__u32 index = hash_condition(key, seed);

	for (int i = 0; i < PROBE_LIMIT; i++, index++) {
		struct condition *entry = cell_at(arena, base + (index & mask));

		if (!entry || !entry->meta)
			return 0;
		if (entry->meta == key->meta && entry->fields == key->fields &&
		    entry->from[0] == key->from[0] && entry->from[1] == key->from[1] &&
		    entry->to[0] == key->to[0] && entry->to[1] == key->to[1])
			return entry;
	}
	return 0;
}

#endif
