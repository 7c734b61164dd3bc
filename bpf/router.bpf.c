// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * The policy router: sends each packet where the policies of a set say, by the target's neighbour table.
 *
 * Maps
 *   state      which set is live, both plans, which devices are down, the ICMP rate (maps.h)
 *   sets       arenas and counters of both sets (maps.h, table.h)
 *   locals     the namespace's own, broadcast and anycast addresses
 *   ports      the router's addresses on its devices (too_big.h)
 *   fragments  ports of first fragments, for those that follow (flow.h)
 *
 * Hooks: `ingress` also for either side of netkit (its program runs when the packet has become the receiving end's);
 * the `_l3` twins are for devices without a link header. tcx where the kernel has it, clsact elsewhere.
 *
 * The fate of every packet
 *   not unicast IP, link-local, neighbour discovery      next program, then the kernel
 *   redirected by this router at the hook before         next program, then the kernel
 *   no policy matches; the box itself is meant;
 *   TTL <= 1 at ingress                                  next program, then the kernel
 *   policy says pass                                     next program, then the kernel
 *   policy says drop                                     dropped
 *   policy says route: too big for the target            answered by ICMP in its place, else dropped
 *   policy says route: fits                              redirected, VLAN tag removed, TTL - 1 at ingress
 * and a policy with a mirror sends a copy there first.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "include/flow.h"
#include "include/maps.h"
#include "include/match.h"
#include "include/parse.h"
#include "include/too_big.h"

/* TCX_NEXT, NETKIT_NEXT and TC_ACT_UNSPEC are the same: go on with the next program. */
#define NEXT (-1)

#define AF_INET 2
#define AF_INET6 10

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1 << 16);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct local_key);
	__type(value, __u32);
} locals SEC(".maps");

static __always_inline void count(const struct set *set, __u32 id, const struct counter *measure)
{
	__u32 slot = SETS_COUNTERS + set->live;
	__u32 shard = bpf_get_smp_processor_id() & set->plan->shard_mask;
	__u32 index = shard * set->plan->counter_capacity + id;
	void *counters = bpf_map_lookup_elem(&sets, &slot);
	struct counter *counter;

	if (!counters)
		return;
	counter = cell_at(counters, index >> 2);
	if (!counter)
		return;
	counter += index & 3;
	__sync_fetch_and_add(&counter->packets, measure->packets);
	__sync_fetch_and_add(&counter->bytes, measure->bytes);
}

static __always_inline int is_local(const struct packet *p)
{
	struct local_key key = {
		.length = 128,
		.address = {
			bpf_htonl(p->to.high >> 32),
			bpf_htonl(p->to.high),
			bpf_htonl(p->family == V4 ? 0xffff : p->to.low >> 32),
			bpf_htonl(p->to.low),
		},
	};

	return bpf_map_lookup_elem(&locals, &key) != 0;
}

/* 0 when the packet fits the target, else its MTU; negative when the target is gone. */
static __always_inline long check_mtu(struct __sk_buff *ctx, const struct packet *p, __u32 ifindex)
{
	__u32 mtu = 0;
	long verdict;

	if (ctx->gso_size) {
		verdict = bpf_check_mtu(ctx, ifindex, &mtu, 0, BPF_MTU_CHK_SEGS);
	} else {
		/* In: the length from the IP header on. Out: the MTU. */
		mtu = p->length;
		verdict = bpf_check_mtu(ctx, ifindex, &mtu, 0, 0);
	}
	if (verdict < 0)
		return verdict;
	return verdict ? mtu : 0;
}

/* One hop less to live, its checksum kept right. */
static __always_inline int decrement_ttl(struct __sk_buff *ctx, const struct packet *p, __u32 l3)
{
	__u8 ttl = p->ttl - 1;

	if (p->family == V4) {
		/* The 16-bit word that holds the TTL falls by 0x0100 in network order (RFC 1624). */
		if (bpf_l3_csum_replace(ctx, l3 + offsetof(struct iphdr, check),
					bpf_htons((__u16)p->ttl << 8), bpf_htons((__u16)ttl << 8), 2))
			return -1;
		return bpf_skb_store_bytes(ctx, l3 + offsetof(struct iphdr, ttl), &ttl, 1, 0);
	}
	return bpf_skb_store_bytes(ctx, l3 + offsetof(struct ipv6hdr, hop_limit), &ttl, 1,
				   BPF_F_RECOMPUTE_CSUM);
}

/*
 * Takes the kernel's own route off the packet, for which there is no helper but one that puts tunnel metadata in its
 * place. A packet that waits for the hop's neighbour to be resolved is sent by its route's neighbour otherwise
 * (neigh_update() in net/core/neighbour.c): with the wrong address, to nobody.
 */
static __noinline int forget_route(struct __sk_buff *ctx)
{
	struct bpf_tunnel_key none = {};

	return bpf_skb_set_tunnel_key(ctx, &none, sizeof(none), 0);
}

/* Redirects the packet to the hop, or drops it where the kernel refuses. */
static __always_inline int send(struct __sk_buff *ctx, const struct set *set, const struct packet *p,
				const struct hop *hop, int headerless, int egress)
{
	struct bpf_redir_neigh next = {};
	__u32 l3 = p->l3;

	if (p->vlan) {
		if (bpf_skb_vlan_pop(ctx))
			return TC_ACT_SHOT;
		l3 = headerless ? 0 : ETH_HLEN;
	}
	if (!egress && decrement_ttl(ctx, p, l3))
		return TC_ACT_SHOT;
	/* bpf_redirect_neigh takes a link header off, whatever stands in it. */
	if (headerless && bpf_skb_change_head(ctx, ETH_HLEN, 0))
		return TC_ACT_SHOT;
	if (hop->flags & HOP_TAG)
		ctx->tc_index = set->state->tag;
	if (egress)
		forget_route(ctx);
	if (hop->family) {
		next.nh_family = hop->family == 4 ? AF_INET : AF_INET6;
		__builtin_memcpy(next.ipv6_nh, hop->address, sizeof(next.ipv6_nh));
	} else if (p->family == V4) {
		/* The destination itself is the neighbour. Left to the helper, a route on the device would say. */
		next.nh_family = AF_INET;
		next.ipv4_nh = bpf_htonl(p->to.low);
	} else {
		next.nh_family = AF_INET6;
		next.ipv6_nh[0] = bpf_htonl(p->to.high >> 32);
		next.ipv6_nh[1] = bpf_htonl(p->to.high);
		next.ipv6_nh[2] = bpf_htonl(p->to.low >> 32);
		next.ipv6_nh[3] = bpf_htonl(p->to.low);
	}
	return bpf_redirect_neigh(hop->ifindex, &next, sizeof(next), 0);
}

static __always_inline int route_to(struct __sk_buff *ctx, const struct set *set,
				    const struct packet *p, const struct counter *measure, __u32 index,
				    int headerless, int egress)
{
	struct hop *hop = hop_at(set, index);
	int verdict;
	long mtu;

	if (!hop)
		return NEXT;
	mtu = check_mtu(ctx, p, hop->ifindex);
	if (mtu > 0) {
		count(set, TOTAL_TOO_BIG, measure);
		verdict = answer_too_big(ctx, set->state, p, mtu, egress, headerless);
		if (verdict < 0)
			return TC_ACT_SHOT;
		count(set, TOTAL_TOO_BIG_ANSWERED, measure);
		return verdict;
	}
	verdict = mtu < 0 ? TC_ACT_SHOT : send(ctx, set, p, hop, headerless, egress);
	count(set, verdict == TC_ACT_SHOT ? TOTAL_FAILED : TOTAL_ROUTED, measure);
	return verdict;
}

static __always_inline void mirror(struct __sk_buff *ctx, const struct set *set,
				   const struct choice *choice, const struct counter *measure)
{
	__u32 before = ctx->tc_index;
	long failed;

	if (choice->mirror_flags & GROUP_MIRROR_TAG)
		ctx->tc_index = set->state->tag;
	failed = bpf_clone_redirect(ctx, choice->mirror, 0);
	ctx->tc_index = before;
	count(set, failed ? TOTAL_FAILED : TOTAL_MIRRORED, measure);
}

/*
 * parse(), as a global function: the verifier walks it once, and what comes behind it once, not on each of the ways through
 * it. It fills a packet of its own, because the verifier forgets what is written through a pointer from outside.
 */
__noinline int parsed(struct __sk_buff *ctx, struct packet *p, int headerless)
{
	struct packet own = {};
	int is_routed;

	if (!p)
		return 0;
	is_routed = parse(ctx, &own, headerless);
	*p = own;
	return is_routed;
}

static __always_inline int run(struct __sk_buff *ctx, int headerless, int egress)
{
	struct search search = {};
	struct packet p = {}; /* before Linux 6.3 a function is given nothing that was not written */
	struct set *set = &search.set;
	struct counter measure;

	if (!take_set(set))
		return NEXT;
	if (ctx->tc_index && ctx->tc_index == set->state->tag) {
		struct counter one = {.packets = 1, .bytes = ctx->len};

		ctx->tc_index = 0;
		count(set, TOTAL_REDIRECTED, &one);
		return NEXT;
	}
	if (!parsed(ctx, &p, headerless)) {
		struct counter one = {.packets = 1, .bytes = ctx->len};

		count(set, TOTAL_LOCAL, &one);
		return NEXT;
	}
	if (set->plan->flags & PLAN_NEEDS_PORTS)
		read_ports(ctx, &p);
	measure = measured(ctx, &p);
	search.packet = &p;
	search.mark = ctx->mark;
	search.hash = flow_hash(&p);
	match(&search);
	if (search.skipped)
		count(set, TOTAL_NO_HOP, &measure);
	if (!search.value) {
		count(set, TOTAL_UNMATCHED, &measure);
		return NEXT;
	}
	if (is_local(&p)) {
		count(set, TOTAL_LOCAL, &measure);
		return NEXT;
	}
	if (!egress && p.ttl <= 1) {
		count(set, TOTAL_EXPIRED, &measure);
		return NEXT;
	}
	count(set, search.value & VALUE_ID_MASK, &measure);
	if (search.choice.mirror)
		mirror(ctx, set, &search.choice, &measure);
	if (search.choice.kind == VERDICT_HOP)
		return route_to(ctx, set, &p, &measure, search.choice.hop, headerless, egress);
	if (search.choice.kind == VERDICT_DROP) {
		count(set, TOTAL_DROPPED, &measure);
		return TC_ACT_SHOT;
	}
	count(set, TOTAL_PASSED, &measure);
	return NEXT;
}

SEC("tc") int ingress(struct __sk_buff *ctx)
{
	return run(ctx, 0, 0);
}

SEC("tc") int egress(struct __sk_buff *ctx)
{
	return run(ctx, 0, 1);
}

SEC("tc") int ingress_l3(struct __sk_buff *ctx)
{
	return run(ctx, 1, 0);
}

SEC("tc") int egress_l3(struct __sk_buff *ctx)
{
	return run(ctx, 1, 1);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
