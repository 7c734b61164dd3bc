/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* Mixing of keys into 32 bits. */
#ifndef HASH_H
#define HASH_H

#include <bpf/bpf_helpers.h>

#define MIX_1 0x9e3779b97f4a7c15ULL
#define MIX_2 0xd6e8feb86659fd93ULL

/* runtime/src/program/hash.rs has the same. */
static __always_inline __u32 hash4(__u64 key, __u64 seed)
{
	key = (key ^ seed) * MIX_1;
	key = (key ^ key >> 32) * MIX_2;
	return key >> 32;
}

static __always_inline __u32 hash6(__u64 meta, __u64 high, __u64 low, __u64 seed)
{
	__u64 mixed = (high ^ meta ^ seed) * MIX_1;

	mixed = (mixed ^ mixed >> 32 ^ low) * MIX_2;
	return hash4(mixed, low);
}

#endif
