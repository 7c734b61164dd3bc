// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * One policy lookup against its peers, as BPF_PROG_TEST_RUN runs them: the router's own (policies), a bare hash map of as
 * many entries (bare_hash), and an LPM trie with the same policies (lpm_trie), over the same random sources.
 *
 * Each program looks up the next LOOKUPS sources of `sources` and returns how many were found. `nothing` does all but
 * the lookup: its time is the loop's.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "../bpf/include/maps.h"
#include "../bpf/include/prefix.h"

#define SOURCES (1 << 20)
#define LOOKUPS 1024

/* Host order: an address, and the address of the policy that it was made for, which is a key of the bare hash. */
struct source {
	__u32 address;
	__u32 key;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOURCES);
	__type(key, __u32);
	__type(value, struct source);
} sources SEC(".maps");

/* The first source of the next run. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} start SEC(".maps");

/* Both are made as large as there are policies. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bare SEC(".maps");

struct lpm_key {
	__u32 length;
	__be32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct lpm_key);
	__type(value, __u64);
} trie SEC(".maps");

static __always_inline __u32 first_source(void)
{
	__u32 zero = 0;
	__u32 *place = bpf_map_lookup_elem(&start, &zero);

	if (!place)
		return 0;
	*place += LOOKUPS;
	return *place;
}

static __always_inline int find_nothing(const struct source *source)
{
	return (source->address | source->key) != 0;
}

static __always_inline int find_bare_hash(const struct source *source)
{
	__u32 key = source->key;
	__u64 *value = bpf_map_lookup_elem(&bare, &key);

	return value && *value;
}

static __always_inline int find_lpm_trie(const struct source *source)
{
	struct lpm_key key = {.length = 32, .address = __builtin_bswap32(source->address)};
	__u64 *value = bpf_map_lookup_elem(&trie, &key);

	return value && *value;
}

/* What a packet pays: the live word, the map of maps, the search. */
static __always_inline int find_policies(const struct source *source)
{
	struct set set;

	return take_set(&set) && prefix4(set.plan, set.arena, source->address, SOURCE);
}

/* A program that looks up LOOKUPS sources by `find_NAME`. */
#define PEER(NAME)                                                                               \
	static long step_##NAME(__u32 index, void *context)                                      \
	{                                                                                        \
		__u32 *run = context, at = (run[0] + index) & (SOURCES - 1);                     \
		struct source *source = bpf_map_lookup_elem(&sources, &at);                      \
                                                                                                 \
		if (source)                                                                      \
			run[1] += find_##NAME(source);                                           \
		return 0;                                                                        \
	}                                                                                        \
	SEC("tc") int NAME(struct __sk_buff *ctx)                                                \
	{                                                                                        \
		__u32 run[2] = {first_source(), 0};                                              \
                                                                                                 \
		bpf_loop(LOOKUPS, step_##NAME, run, 0);                                          \
		return run[1];                                                                   \
	}

PEER(nothing)
PEER(bare_hash)
PEER(lpm_trie)
PEER(policies)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
