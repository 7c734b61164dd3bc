// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Frames by their source: denied, allowed, or limited to a rate, before the kernel has made packets of them.
 *
 * Maps
 *   prefixes4, prefixes6   verdicts by prefix: a hash of {length, network}, asked for each length in use, longest first. With few
 *                          lengths that is several times faster than an LPM trie, which is slow when it is large
 *   lengths, live          the lengths in use: two lists, and the number of the one that is read
 *   sources                a token bucket for each source, the least recently seen forgotten
 *   bucket                 the token bucket of all together
 *   counters               by fate
 *
 * Hook: a stage of `dispatch`.
 *
 * The fate of every frame
 *   not IP, neighbour discovery                 next stage
 *   the longest prefix of its source denies     dropped
 *   it allows                                   next stage, whatever the rate
 *   no prefix, and the default denies           dropped
 *   no prefix, and the rate is used up          dropped
 *   else                                        next stage
 */
#include "include/bucket.h"
#include "include/frame.h"
#include "include/stages.h"

enum verdict { VERDICT_DEFAULT = 0, VERDICT_DENY = 1, VERDICT_ALLOW = 2 };
enum limit { LIMIT_NONE = 0, LIMIT_ALL = 1, LIMIT_SOURCE = 2 };
enum fate { FATE_PASSED, FATE_ALLOWED, FATE_DENIED, FATE_LIMITED, FATE_OTHER, FATES };

const volatile __u32 fallback = VERDICT_ALLOW;
const volatile __u32 limit = LIMIT_NONE;
const volatile struct rate rate = {};

struct prefix4 {
	__u32 length;
	__u32 network; /* network order */
};

struct prefix6 {
	__u32 length;
	__u32 network[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix4);
	__type(value, __u32);
} prefixes4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix6);
	__type(value, __u32);
} prefixes6 SEC(".maps");

/* Longest first. */
struct lengths {
	__u32 count4;
	__u32 count6;
	__u8 length4[33];
	__u8 length6[129];
};

/* Two, so that no frame sees half a list. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct lengths);
} lengths SEC(".maps");

/* A map of its own: written after the list that it names. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} live SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct address);
	__type(value, __u64);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} bucket SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FATES);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

static __always_inline __u32 verdict4(const struct lengths *list, __u32 address)
{
	for (__u32 i = 0; i < 33 && i < list->count4; i++) {
		struct prefix4 key = {.length = list->length4[i]};
		__u32 *verdict;

		key.network = bpf_htonl(masked4(address, key.length));
		verdict = bpf_map_lookup_elem(&prefixes4, &key);
		if (verdict)
			return *verdict;
	}
	return VERDICT_DEFAULT;
}

static __always_inline __u32 verdict6(const struct lengths *list, struct address address)
{
	for (__u32 i = 0; i < 129 && i < list->count6; i++) {
		struct prefix6 key = {.length = list->length6[i]};
		struct address network = masked6(address, key.length);
		__u32 *verdict;

		key.network[0] = bpf_htonl(network.high >> 32);
		key.network[1] = bpf_htonl(network.high);
		key.network[2] = bpf_htonl(network.low >> 32);
		key.network[3] = bpf_htonl(network.low);
		verdict = bpf_map_lookup_elem(&prefixes6, &key);
		if (verdict)
			return *verdict;
	}
	return VERDICT_DEFAULT;
}

/* Whether the source, or all together, have sent enough for now. */
static __always_inline int is_limited(const struct packet *p)
{
	const struct rate now_rate = {.cost = rate.cost, .burst = rate.burst};
	__u64 now = bpf_ktime_get_ns(), *full_at, first;
	struct address source = p->from;
	__u32 zero = 0;

	if (limit == LIMIT_ALL) {
		full_at = bpf_map_lookup_elem(&bucket, &zero);
		return full_at && !bucket_take(full_at, &now_rate, 1, now);
	}
	/* Beside IPv6's, as ::ffff:0:0/96. */
	if (p->family == V4)
		source.low |= 0xffffULL << 32;
	full_at = bpf_map_lookup_elem(&sources, &source);
	if (full_at)
		return !bucket_take(full_at, &now_rate, 1, now);
	first = now + (now_rate.cost >> BUCKET_SHIFT);
	bpf_map_update_elem(&sources, &source, &first, BPF_NOEXIST);
	return 0;
}

static __always_inline enum fate fate_of(struct xdp_md *ctx, struct packet *p)
{
	__u32 zero = 0, verdict, which, *word;
	struct lengths *list;

	if (!parse_frame(ctx, p) || frame_is_discovery(ctx, p))
		return FATE_OTHER;
	word = bpf_map_lookup_elem(&live, &zero);
	which = word ? *word : 0;
	list = bpf_map_lookup_elem(&lengths, &which);
	if (!list)
		return FATE_OTHER;
	verdict = p->family == V4 ? verdict4(list, p->from.low) : verdict6(list, p->from);
	if (verdict == VERDICT_ALLOW)
		return FATE_ALLOWED;
	if (verdict == VERDICT_DENY || fallback == VERDICT_DENY)
		return FATE_DENIED;
	return limit && is_limited(p) ? FATE_LIMITED : FATE_PASSED;
}

SEC("xdp.frags") int filter(struct xdp_md *ctx)
{
	struct packet p = {};
	__u32 fate = fate_of(ctx, &p);
	struct counter *counter = bpf_map_lookup_elem(&counters, &fate);

	if (counter) {
		counter->packets++;
		counter->bytes += p.length ? p.length : ctx->data_end - ctx->data;
	}
	if (fate == FATE_DENIED || fate == FATE_LIMITED)
		return XDP_DROP;
	return next_stage(ctx);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
