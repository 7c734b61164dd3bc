// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * One policy lookup against its peers, as BPF_PROG_TEST_RUN runs them: the router's own (policy4, policy6), a bare hash
 * map of as many entries (bare_hash), and an LPM trie with the same policies (trie), over the same random sources.
 *
 * Each program looks up REPEAT sources of `sources`, from packet bytes 14..17 on as the first index, and returns how
 * many were found. `nothing` does all but the lookup: subtract its time.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "../bpf/include/maps.h"
#include "../bpf/include/prefix.h"

#define SOURCES (1 << 20)
#define REPEAT 1024

/* Random sources, in host order; `start` moves on with every run. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SOURCES);
	__type(key, __u32);
	__type(value, __u32);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} start SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1 << 20);
	__type(key, __u32);
	__type(value, __u64);
} bare SEC(".maps");

struct lpm_key {
	__u32 length;
	__be32 address;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 20);
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
	*place += REPEAT;
	return *place;
}

static __always_inline __u32 source_at(__u32 index)
{
	__u32 *source;

	index &= SOURCES - 1;
	source = bpf_map_lookup_elem(&sources, &index);
	return source ? *source : 0;
}

static __always_inline int find_nothing(__u32 source)
{
	return source != 0;
}

static __always_inline int find_bare_hash(__u32 source)
{
	__u64 *value = bpf_map_lookup_elem(&bare, &source);

	return value && *value;
}

static __always_inline int find_lpm_trie(__u32 source)
{
	struct lpm_key key = {.length = 32, .address = __builtin_bswap32(source)};
	__u64 *value = bpf_map_lookup_elem(&trie, &key);

	return value && *value;
}

/* What a packet pays: the live word, the map of maps, the search. */
static __always_inline int find_policy4(__u32 source)
{
	struct set set;

	return take_set(&set) && prefix4(set.plan, set.arena, source, SOURCE);
}

static __always_inline int find_policy6(__u32 source)
{
	struct set set;
	struct address address = {.high = (__u64)source << 32 | ~source, .low = source};

	return take_set(&set) && prefix6(set.plan, set.arena, address, SOURCE);
}

/* A program that looks up REPEAT sources by `find_NAME`. */
#define PEER(NAME)                                                                               \
	static long step_##NAME(__u32 index, void *context)                                      \
	{                                                                                        \
		__u32 *run = context;                                                            \
                                                                                                 \
		run[1] += find_##NAME(source_at(run[0] + index));                                \
		return 0;                                                                        \
	}                                                                                        \
	SEC("tc") int NAME(struct __sk_buff *ctx)                                                \
	{                                                                                        \
		__u32 run[2] = {first_source(), 0};                                              \
                                                                                                 \
		bpf_loop(REPEAT, step_##NAME, run, 0);                                           \
		return run[1];                                                                   \
	}

PEER(nothing)
PEER(bare_hash)
PEER(lpm_trie)
PEER(policy4)
PEER(policy6)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
