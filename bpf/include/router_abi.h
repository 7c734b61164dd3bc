/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What the policy router's host half and its eBPF half agree on: the layout of every byte they share.
 *
 * runtime/src/program/router/abi.rs mirrors this file, field by field. A policy set lives in one *arena*: an array of
 * 64-byte cells, one cache line each, in sections whose places the set's `plan` names. Two arenas exist; `state.live`
 * names the one packets read, so that a set changes with one store.
 */
#ifndef ROUTER_ABI_H
#define ROUTER_ABI_H

#include <linux/types.h>

#include "packet.h"

#define CELL_BYTES 64
/* Cells a table lookup may visit. The host makes a table larger rather than go beyond. */
#define PROBE_LIMIT 8

#define MAX_DEVICES 16384 /* distinct devices that hops of one router use */
#define MAX_SHAPES 64	  /* distinct match shapes of conditional policies, per address family */
#define MAX_HOPS 64	  /* hops of one policy */

/*
 * A key of the IPv4 table: address (host order) in bits 0..31, length in 32..39, side in 40, USED. A removed entry
 * leaves TOMBSTONE, a cell that was never used 0.
 */
#define KEY_LENGTH_SHIFT 32
#define KEY_SIDE_SHIFT 40
#define KEY_USED (1ULL << 63)
#define KEY_TOMBSTONE (1ULL << 62)

enum side { SOURCE = 0, DESTINATION = 1 };

/*
 * What a matching entry says: policy id in bits 0..23, VALUE_OWN when the entry is a policy's own and not a marker
 * that carries a shorter one's, verdict in bits 32..63: kind in the upper 4 of these, index of a hop or group below.
 */
#define VALUE_ID_MASK 0xffffffULL
#define VALUE_OWN (1ULL << 24)
#define VERDICT_KIND_SHIFT 28
#define VERDICT_INDEX_MASK 0x0fffffffU

enum verdict_kind {
	VERDICT_NONE = 0,
	VERDICT_PASS = 1,
	VERDICT_DROP = 2,
	VERDICT_HOP = 3,   /* index of a hop */
	VERDICT_GROUP = 4, /* index of a group: several hops, or a mirror */
};

/* Four entries of IPv4. Keys first: a miss reads half a cache line. */
struct cell4 {
	__u64 key[4];
	__u64 value[4];
};

/* Two entries of IPv6. `meta` is the IPv4 key without its address. */
struct entry6 {
	__u64 meta;
	__u64 high;
	__u64 low;
	__u64 value;
};

struct cell6 {
	struct entry6 entry[2];
};

/* A conditional policy; fields that its shape does not use are 0. */
#define CONDITION_SHAPE_SHIFT 8
#define CONDITION_VLAN_SHIFT 16

struct condition {
	__u64 meta;    /* KEY_USED | vlan << 16 | shape << 8 | protocol */
	__u64 fields;  /* mark << 32 | source port << 16 | destination port */
	__u64 from[2]; /* high, low; an IPv4 address is the low word */
	__u64 to[2];
	__u64 rank; /* priority << 32 | order of arrival */
	__u64 value;
};

/* Which fields a shape compares. */
#define SHAPE_PROTOCOL 0x01
#define SHAPE_SOURCE_PORT 0x02
#define SHAPE_DESTINATION_PORT 0x04
#define SHAPE_MARK 0x08
#define SHAPE_VLAN 0x10

struct shape {
	__u8 fields;
	__u8 from_length;
	__u8 to_length;
	__u8 id; /* in the keys of its policies */
	__u32 priority;	   /* the best of its policies */
	__u32 specificity; /* smaller is more specific: from, to, fields */
	__u32 order;	   /* the earliest of its policies with that priority */
};

/* A hop: 32 bytes, two to a cell. */
#define HOP_TAG 0x01 /* this router will see the packet again behind the device */

struct hop {
	__u32 ifindex;
	__u16 device; /* index into state.down */
	__u8 family;  /* of the next hop: 0 (none: the destination itself), 4 or 6 */
	__u8 flags;
	__u32 address[4]; /* network order */
	__u64 pad;
};

/* A set of hops that share flows by a table of buckets, or a verdict with a mirror. */
#define GROUP_MIRROR_TAG 0x01

struct group {
	__u32 first_hop;
	__u32 hops;
	__u32 action;	    /* VERDICT_PASS or VERDICT_DROP when there are no hops */
	__u32 first_bucket; /* in cells from the buckets' section */
	__u32 bucket_mask;  /* number of buckets - 1 */
	__u32 mirror;	    /* ifindex, 0 for none */
	__u32 mirror_flags;
	__u32 pad[9];
};

/* One share of a group's flows. */
struct bucket {
	__u16 hop;  /* index within the group, now */
	__u16 want; /* where it goes once idle */
	__u32 seen; /* seconds of CLOCK_MONOTONIC */
};

#define BUCKET_IDLE_SECONDS 60

/* Counters (struct counter) are 16 bytes, four to a cell; the first ids count what no policy owns. */
enum total {
	TOTAL_ROUTED,	   /* sent to a hop */
	TOTAL_PASSED,	   /* a policy said pass */
	TOTAL_DROPPED,	   /* a policy said drop */
	TOTAL_UNMATCHED,   /* no policy matched */
	TOTAL_LOCAL,	   /* for the box itself, and what else always passes */
	TOTAL_TOO_BIG,	   /* did not fit the target's MTU */
	TOTAL_TOO_BIG_ANSWERED,
	TOTAL_REDIRECTED,  /* had been redirected by this router already */
	TOTAL_NO_HOP,	   /* every hop of a matching policy was down: the policy was skipped */
	TOTAL_FAILED,	   /* the kernel refused to redirect, mirror or untag */
	TOTAL_MIRRORED,
	TOTAL_EXPIRED,	   /* TTL <= 1 at ingress: left to the kernel */
	FIRST_POLICY_ID = 16,
};

/*
 * A step of the search over prefix lengths, a node of a binary tree: where to go on a hit (longer lengths) and on a
 * miss; 0 ends it.
 */
struct step {
	__u8 length;
	__u8 hit;
	__u8 miss;
	__u8 pad;
};

#define MAX_STEPS4 64
#define MAX_STEPS6 256
#define DEPTH4 6 /* of the tree of all 32 lengths */
#define DEPTH6 8

#define PLAN_NEEDS_PORTS 0x01 /* a shape or a group looks at ports */

/* Where a set's sections are, and its lengths and shapes. All bases are in cells. */
struct plan {
	__u64 seed;
	__u32 table4;
	__u32 mask4;
	__u32 table6;
	__u32 mask6;
	__u32 conditions;
	__u32 condition_mask;
	__u32 groups;
	__u32 hops;
	__u32 buckets;
	__u32 flags;
	__u32 counter_capacity; /* counters per shard */
	__u32 shard_mask;	/* counter shards - 1 */
	__u64 fallback[2];	/* the default policy, per family */
	__u64 zero[2][2];	/* policies of prefix length 0: [family][side] */
	__u8 lengths[2][2];	/* how many are in use, 0 apart: [family][side] */
	__u8 shapes[2];		/* shapes in use, per family */
	__u8 pad[2];
	struct step step4[2][MAX_STEPS4]; /* [side]; the search starts at 1 */
	struct step step6[2][MAX_STEPS6];
	__u8 length4[2][32];		  /* ascending */
	__u8 length6[2][128];
	struct shape shape[2][MAX_SHAPES]; /* best first */
};

struct state {
	__u32 live;	      /* which plan and arena packets read: 0 or 1 */
	__u32 tag;	      /* tc_index of what this router redirected */
	__u64 answer_window;  /* rate limit of ICMP errors: now >> ANSWER_WINDOW_SHIFT, and how many in it */
	__u64 answers;
	__u64 nothing; /* always 0, which the verifier does not know */
	__u64 pad[4];
	struct plan plan[2];
	__u8 down[MAX_DEVICES]; /* by device index; 1 while its device cannot send */
};

#define ANSWER_WINDOW_SHIFT 24 /* 16.8 ms */
#define ANSWERS_PER_WINDOW 16  /* about 950 a second */

/* Slots of the map of maps. */
#define SETS_ARENA 0	/* + plan index */
#define SETS_COUNTERS 2 /* + plan index */
#define SETS_MEMORY 4	/* + plan index; the host's own, which programs do not read */
#define SETS_ENTRIES 6

/* The addresses a router answers with from the device that a packet came in by. */
struct port {
	__u32 address4;
	__u32 address6[4];
};

struct local_key {
	__u32 length;	  /* IPv4 as ::ffff:a.b.c.d, 96 bits longer */
	__u32 address[4]; /* network order */
};

#endif
