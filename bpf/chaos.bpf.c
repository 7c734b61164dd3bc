// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * Faults: packets that match are lost, duplicated, corrupted, by chance or by count, until a deadline.
 *
 * Chance is a function of the seed and of how many packets matched before, so that the same packets meet the same fate
 * again. One object is one fault; several stand one after the other.
 *
 * Maps
 *   fault    how far it is, and what it did
 *   settings what it matches
 *   deadline when it ends
 *   alive    the programs that do the work. The kernel empties a program array when the last process lets go of it, so a fault
 *            ends with its script, even where a clsact filter stays behind (prog_array_map_clear, kernel/bpf/arraymap.c)
 *   stash    what stood in tc_index while a copy was on its way, for this processor
 *   fragments  ports of first fragments, for those that follow (flow.h)
 *
 * Hooks: `chaos_ingress`, `chaos_egress`; tcx where the kernel has it, clsact elsewhere; with or without a link header.
 *
 * The fate of every packet
 *   a copy that this fault, or a later one, made         next program
 *   past the deadline, does not match                    next program
 *   its lot is to be lost, or it is a blackhole          dropped
 *   its lot is to be duplicated, corrupted               copied to the same hook, one bit flipped; next program
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "include/parse.h"
#include "include/selector.h"

#define NEXT (-1)

enum loss { LOSS_NONE = 0, LOSS_SHARE, LOSS_EVERY, LOSS_GEMODEL, LOSS_ALL };

/* Chances are of 2^32. */
const volatile __u64 seed = 0;
const volatile __u32 loss = LOSS_NONE;
const volatile __u64 loss_chance = 0;
const volatile __u32 loss_every = 1;
const volatile __u64 turns_bad = 0;  /* Gilbert-Elliott's p */
const volatile __u64 turns_good = 0; /* its r */
const volatile __u64 loss_bad = 0;   /* 1 - h */
const volatile __u64 loss_good = 0;  /* 1 - k */
const volatile __u64 duplicate_chance = 0;
const volatile __u64 corrupt_chance = 0;
const volatile __u32 headerless = 0;
/*
 * Copies come by the same hook again. They bear, in tc_index, the place of the fault that made them: earlier faults have had
 * the original already. (The policy router's marks have their highest bit set, the mirror's is 0x4d69.)
 */
#define COPY_MARK 0x5000
#define COPY_PLACES 0x400
const volatile __u32 place = 0;

struct fault {
	struct bpf_spin_lock lock; /* of matched and bad */
	__u32 bad;		   /* Gilbert-Elliott's state */
	__u64 matched;
	__u64 lost;
	__u64 duplicated;
	__u64 corrupted;
	__u64 failed; /* could not be copied or changed */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct fault);
} fault SEC(".maps");

struct settings {
	struct selector match;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* bpf_ktime_get_ns(); 0 for none. By itself, for a fault that runs already is given its time anew. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} deadline SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} stash SEC(".maps");

/* splitmix64 (Steele, Lea, Flood 2014) at a place of its sequence; `use` tells the draws of one packet apart. */
static __always_inline __u64 draw(__u64 packet, __u32 use)
{
	__u64 z = seed + (packet * 8 + use + 1) * 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

enum use { USE_LOSS, USE_TURN, USE_DUPLICATE, USE_CORRUPT, USE_PLACE };

static __always_inline int drawn(__u64 packet, enum use use, __u64 chance)
{
	return (draw(packet, use) >> 32) < chance;
}

/* Whether the packet, the `number`th, is lost. Called under the lock: the state goes on with each packet. */
static __always_inline int is_lost(struct fault *f, __u64 number)
{
	switch (loss) {
	case LOSS_ALL:
		return 1;
	case LOSS_SHARE:
		return drawn(number, USE_LOSS, loss_chance);
	case LOSS_EVERY:
		return (number + 1) % loss_every == 0;
	case LOSS_GEMODEL:
		if (drawn(number, USE_TURN, f->bad ? turns_good : turns_bad))
			f->bad = !f->bad;
		return drawn(number, USE_LOSS, f->bad ? loss_bad : loss_good);
	}
	return 0;
}

/*
 * Puts a copy at the start of the hook that this packet is on. Out, that happens before this returns, and on this processor; in,
 * the copy waits in the backlog, and what tc_index held is lost to it.
 */
static __always_inline int duplicate(struct __sk_buff *ctx, int egress)
{
	__u32 zero = 0, before = ctx->tc_index, *kept = bpf_map_lookup_elem(&stash, &zero);
	long failed;

	if (kept)
		*kept = before;
	ctx->tc_index = COPY_MARK + place;
	failed = bpf_clone_redirect(ctx, ctx->ifindex, egress ? 0 : BPF_F_INGRESS);
	ctx->tc_index = before;
	return !failed;
}

/* Whether the packet is a copy that goes on untouched. */
static __always_inline int is_copy(struct __sk_buff *ctx, int egress)
{
	__u32 zero = 0, maker = ctx->tc_index - COPY_MARK, *kept;

	if (maker >= COPY_PLACES || maker < place)
		return 0;
	if (maker > place)
		return 1;
	kept = bpf_map_lookup_elem(&stash, &zero);
	ctx->tc_index = egress && kept ? *kept : 0;
	return 1;
}

/* Flips one bit behind the IP header, or behind the link header of what is not IP. */
static __always_inline int corrupt(struct __sk_buff *ctx, const struct packet *p, __u64 number)
{
	__u32 start = p->l4 ? p->l4 : p->l3, length = ctx->len;
	__u64 random = draw(number, USE_PLACE);
	__u8 byte;

	if (length <= start)
		return 0;
	start += (__u32)random % (length - start);
	if (bpf_skb_load_bytes(ctx, start, &byte, sizeof(byte)))
		return 0;
	byte ^= 1 << (random >> 32 & 7);
	return !bpf_skb_store_bytes(ctx, start, &byte, sizeof(byte), 0);
}

static __always_inline int run(struct __sk_buff *ctx, int egress)
{
	struct packet p = {};
	__u32 zero = 0;
	struct fault *f = bpf_map_lookup_elem(&fault, &zero);
	struct settings *wanted = bpf_map_lookup_elem(&settings, &zero);
	__u64 number, *until = bpf_map_lookup_elem(&deadline, &zero);
	int lost;

	if (!f || !wanted || !until || is_copy(ctx, egress))
		return NEXT;
	if (*until && bpf_ktime_get_ns() >= *until)
		return NEXT;
	if (!select_packet(&wanted->match, ctx, &p, headerless))
		return NEXT;
	bpf_spin_lock(&f->lock);
	number = f->matched++;
	lost = is_lost(f, number);
	bpf_spin_unlock(&f->lock);
	if (lost) {
		__sync_fetch_and_add(&f->lost, 1);
		return TC_ACT_SHOT;
	}
	if (duplicate_chance && drawn(number, USE_DUPLICATE, duplicate_chance))
		__sync_fetch_and_add(duplicate(ctx, egress) ? &f->duplicated : &f->failed, 1);
	if (corrupt_chance && drawn(number, USE_CORRUPT, corrupt_chance))
		__sync_fetch_and_add(corrupt(ctx, &p, number) ? &f->corrupted : &f->failed, 1);
	return NEXT;
}

SEC("tc") int fault_ingress(struct __sk_buff *ctx)
{
	return run(ctx, 0);
}

SEC("tc") int fault_egress(struct __sk_buff *ctx)
{
	return run(ctx, 1);
}

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(values, int(void *));
} alive SEC(".maps") = {
	.values = {(void *)&fault_ingress, (void *)&fault_egress},
};

SEC("tc") int chaos_ingress(struct __sk_buff *ctx)
{
	bpf_tail_call(ctx, &alive, 0);
	return NEXT;
}

SEC("tc") int chaos_egress(struct __sk_buff *ctx)
{
	bpf_tail_call(ctx, &alive, 1);
	return NEXT;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
