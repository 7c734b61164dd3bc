// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * A load balancer: connections to one virtual address and port are shared among backends, and each stays where it is.
 *
 * Maps
 *   service    one: the virtual address, and which of the tables packets read (struct service)
 *   tables     both Maglev tables: 65537 backend numbers each (struct table)
 *   backends   address and state by number; number 0 is nobody
 *   flows      both directions of every connection (struct flow_key, struct flow), the oldest forgotten first
 *   counters   by backend, per processor; those of number 0 are of packets that found no backend
 *   fragments  ports of first fragments, for those that follow (flow.h)
 *
 * Hooks: `lb_l2` on any link with a link header, `lb_l3` on one without. Each knows requests from replies by itself, so that
 * ingress and egress have the same program.
 *
 * The fate of every packet, which then goes on to the next program and the kernel
 *   not TCP or UDP, as the service is; to another address    as it is
 *   request of a known connection     to its backend: destination address and port are rewritten
 *   request of a new connection       to the backend that its hash finds in the table
 *   request when no backend takes any as it is: the kernel says that nobody listens
 *   reply of a known connection       from the virtual address: source address and port are rewritten
 *   ICMP error about either           with the address and port that its receiver knows, in the packet it quotes too
 *   cannot be rewritten               dropped
 *
 * A connection is new when nothing is known of it. A SYN begins another one where both sides have ended the last, or where
 * its backend takes no new ones; so does a UDP packet after a pause.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>

#include "include/flow.h"
#include "include/parse.h"
#include "include/quote.h"
#include "include/rewrite.h"

/* TCX_NEXT, NETKIT_NEXT and TC_ACT_UNSPEC are the same: go on with the next program. */
#define NEXT (-1)

#define TABLE_SIZE 65537 /* a prime, as Maglev needs it; maglev.rs has the same */
#define MAX_BACKENDS 4096

#define TCP_FLAGS_OFFSET 13
#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

struct service {
	struct in6_addr address; /* IPv4 as ::ffff:a.b.c.d */
	__be16 port;
	__u8 protocol;
	__u8 pad;
	__u32 live; /* index of the table that packets read */
	__u32 idle; /* seconds without a packet after which a UDP flow is new */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct service);
} service SEC(".maps");

struct table {
	__u16 backend[TABLE_SIZE];
	__u16 pad[3]; /* to eight bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct table);
} tables SEC(".maps");

enum state {
	ABSENT,	  /* in no table; connections that it has go on */
	SERVING,  /* gets new connections */
	DRAINING, /* gets none */
};

struct backend {
	struct endpoint at;
	enum state state;
	__u32 weight;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct backend);
} backends SEC(".maps");

/* A packet's ends. */
struct flow_key {
	struct in6_addr from;
	struct in6_addr to;
	__be16 source_port;
	__be16 destination_port;
};

enum way { REQUEST, REPLY };

#define CLOSED_BY_CLIENT 0x01
#define CLOSED_BY_BACKEND 0x02
#define CLOSED (CLOSED_BY_CLIENT | CLOSED_BY_BACKEND)

struct flow {
	struct endpoint other; /* of a request, where it goes; of a reply, where it says it comes from */
	__u32 seen; /* seconds of CLOCK_MONOTONIC_COARSE */
	__u16 backend;
	__u8 way;   /* enum way */
	__u8 closed; /* of a request: who has ended the connection, CLOSED_* */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 17);
	__type(key, struct flow_key);
	__type(value, struct flow);
} flows SEC(".maps");

struct counts {
	__u64 begun; /* connections */
	struct counter requests;
	struct counter replies;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_BACKENDS);
	__type(key, __u32);
	__type(value, struct counts);
} counters SEC(".maps");

static __always_inline struct in6_addr mapped(const struct packet *p, struct address a)
{
	struct in6_addr out;

	out.in6_u.u6_addr32[0] = bpf_htonl(a.high >> 32);
	out.in6_u.u6_addr32[1] = bpf_htonl(a.high);
	out.in6_u.u6_addr32[2] = bpf_htonl(p->family == V4 ? 0xffff : a.low >> 32);
	out.in6_u.u6_addr32[3] = bpf_htonl(a.low);
	return out;
}

static __always_inline int same(const struct in6_addr *a, const struct in6_addr *b)
{
	return a->in6_u.u6_addr32[3] == b->in6_u.u6_addr32[3] &&
	       a->in6_u.u6_addr32[2] == b->in6_u.u6_addr32[2] &&
	       a->in6_u.u6_addr32[1] == b->in6_u.u6_addr32[1] &&
	       a->in6_u.u6_addr32[0] == b->in6_u.u6_addr32[0];
}

static __always_inline void add(struct counter *counter, struct counter more)
{
	counter->packets += more.packets;
	counter->bytes += more.bytes;
}

static __always_inline struct counts *counts_of(__u32 backend)
{
	return bpf_map_lookup_elem(&counters, &backend);
}

/* Of a request's flow: the key of its replies. */
static __always_inline void reply_key(struct flow_key *reply, const struct flow_key *request,
				      const struct endpoint *backend)
{
	reply->from = backend->address;
	reply->to = request->from;
	reply->source_port = backend->port;
	reply->destination_port = request->source_port;
}

/* Of a reply's flow: the flow of its requests. */
static __always_inline struct flow *request_of(const struct flow_key *reply, const struct flow *flow)
{
	struct flow_key request = {
		.from = reply->to,
		.to = flow->other.address,
		.source_port = reply->destination_port,
		.destination_port = flow->other.port,
	};

	return bpf_map_lookup_elem(&flows, &request);
}

/* Notes the way back: of a new connection whatever was there before, else where it has been forgotten (BPF_NOEXIST). */
static __noinline int keep_reply(const struct flow_key *request, const struct flow *flow, __u64 flags)
{
	struct flow_key key;
	struct flow reply = {
		.other = {.address = request->to, .port = request->destination_port},
		.backend = flow->backend,
		.seen = flow->seen,
		.way = REPLY,
	};

	reply_key(&key, request, &flow->other);
	return bpf_map_update_elem(&flows, &key, &reply, flags);
}

/* Whether this flow's backend is still the one of that number, and takes new connections. */
static __always_inline int serves(const struct flow *flow)
{
	__u32 number = flow->backend;
	struct backend *backend = bpf_map_lookup_elem(&backends, &number);

	return backend && backend->state == SERVING && backend->at.port == flow->other.port &&
	       same(&backend->at.address, &flow->other.address);
}

/* What a packet says about the end of its connection: `side` has no more to send, or nobody has. */
static __always_inline __u8 closes(__u8 flags, __u8 side)
{
	if (flags & TCP_RST)
		return CLOSED;
	return flags & TCP_FIN ? side : 0;
}

static __always_inline int begins_anew(const struct service *service, const struct flow *flow,
				       const struct packet *p, __u8 flags, __u32 now)
{
	if (p->protocol == IPPROTO_TCP)
		return (flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && (flow->closed == CLOSED || !serves(flow));
	/* Another processor may be a moment ahead. */
	return (__s32)(now - flow->seen) > (__s32)service->idle;
}

/* The backend of a new connection; false when there is none. */
static __always_inline int pick(const struct service *service, const struct packet *p, struct flow *flow)
{
	__u32 live = *(volatile __u32 *)&service->live & 1, number;
	/* The same share of the table as of 2^32: unlike a remainder, the verifier knows its bound. */
	__u64 index = (__u64)flow_hash(p) * TABLE_SIZE >> 32;
	struct table *table = bpf_map_lookup_elem(&tables, &live);
	struct backend *backend;

	if (!table)
		return 0;
	number = table->backend[index];
	backend = bpf_map_lookup_elem(&backends, &number);
	if (!number || !backend)
		return 0;
	flow->other = backend->at;
	flow->backend = number;
	return 1;
}

static __always_inline __u8 tcp_flags(struct __sk_buff *ctx, const struct packet *p)
{
	__u8 flags = 0;

	if (p->protocol == IPPROTO_TCP && p->fragment != LATER_FRAGMENT)
		bpf_skb_load_bytes(ctx, p->l4 + TCP_FLAGS_OFFSET, &flags, sizeof(flags));
	return flags;
}

static __always_inline int request(struct __sk_buff *ctx, const struct service *service,
				   const struct packet *p, const struct flow_key *key)
{
	struct flow *known = bpf_map_lookup_elem(&flows, key);
	__u8 flags = tcp_flags(ctx, p);
	__u32 now = seconds_now();
	struct flow flow = {};
	struct counts *counts;

	if (known && !begins_anew(service, known, p, flags, now)) {
		flow = *known;
		known->closed |= closes(flags, CLOSED_BY_CLIENT);
		/* Once a second is enough, and spares the other processors. */
		if (flow.seen != now) {
			known->seen = flow.seen = now;
			keep_reply(key, &flow, BPF_NOEXIST);
		}
		counts = counts_of(flow.backend);
	} else {
		if (!pick(service, p, &flow)) {
			counts = counts_of(0);
			if (counts)
				add(&counts->requests, measured(ctx, p));
			return NEXT;
		}
		flow.seen = now;
		flow.closed = closes(flags, CLOSED_BY_CLIENT);
		bpf_map_update_elem(&flows, key, &flow, BPF_ANY);
		keep_reply(key, &flow, BPF_ANY);
		counts = counts_of(flow.backend);
		if (counts)
			counts->begun++;
	}
	if (counts)
		add(&counts->requests, measured(ctx, p));
	return rewrite(ctx, p, DESTINATION_END, &flow.other) ? TC_ACT_SHOT : NEXT;
}

static __always_inline int reply(struct __sk_buff *ctx, const struct packet *p,
				 const struct flow_key *key)
{
	struct flow *known = bpf_map_lookup_elem(&flows, key);
	__u32 now = seconds_now();
	struct endpoint other;
	struct flow *request;
	struct counts *counts;
	__u8 closed;

	if (!known || known->way != REPLY)
		return NEXT;
	closed = closes(tcp_flags(ctx, p), CLOSED_BY_BACKEND);
	if (closed || known->seen != now) {
		known->seen = now;
		request = request_of(key, known);
		if (request) {
			request->seen = now;
			request->closed |= closed;
		}
	}
	counts = counts_of(known->backend);
	if (counts)
		add(&counts->replies, measured(ctx, p));
	other = known->other;
	return rewrite(ctx, p, SOURCE_END, &other) ? TC_ACT_SHOT : NEXT;
}

/*
 * An ICMP error about a connection's packet: that one has been rewritten, and its sender knows it by what it was. The
 * quoted packet went the other way, so that the flow it is looked up by says what it was before.
 */
static __noinline int related(struct __sk_buff *ctx, const struct packet *p)
{
	struct packet quoted = {};
	struct flow_key key = {};
	struct endpoint other;
	struct flow *known;
	int failed;

	if (!read_quote(ctx, p, &quoted))
		return NEXT;
	key.from = mapped(&quoted, quoted.to);
	key.to = mapped(&quoted, quoted.from);
	key.source_port = bpf_htons(quoted.destination_port);
	key.destination_port = bpf_htons(quoted.source_port);
	known = bpf_map_lookup_elem(&flows, &key);
	if (!known)
		return NEXT;
	other = known->other;
	if (known->way == REQUEST) {
		/* About a reply, to the virtual address: it is the backend's. */
		failed = rewrite_quote(ctx, p, &quoted, SOURCE_END, &other) ||
			 rewrite_error(ctx, p, DESTINATION_END, &other);
	} else {
		/* About a request, to the client: from the backend itself, or from a router on the way there. */
		failed = rewrite_quote(ctx, p, &quoted, DESTINATION_END, &other) ||
			 (p->from.high == quoted.to.high && p->from.low == quoted.to.low &&
			  rewrite_error(ctx, p, SOURCE_END, &other));
	}
	return failed ? TC_ACT_SHOT : NEXT;
}

static __always_inline int run(struct __sk_buff *ctx, int headerless)
{
	struct flow_key key = {};
	struct packet p = {};
	__u32 zero = 0;
	struct service *mine = bpf_map_lookup_elem(&service, &zero);

	if (!mine || !parse(ctx, &p, headerless))
		return NEXT;
	if (p.protocol == (p.family == V4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return related(ctx, &p);
	/* Behind an IPv6 fragment header the protocol is known by the first fragment alone. */
	if (p.protocol != mine->protocol && p.fragment != LATER_FRAGMENT)
		return NEXT;
	read_ports(ctx, &p);
	if (!p.has_ports || p.protocol != mine->protocol)
		return NEXT;
	key.from = mapped(&p, p.from);
	key.to = mapped(&p, p.to);
	key.source_port = bpf_htons(p.source_port);
	key.destination_port = bpf_htons(p.destination_port);
	if (key.destination_port == mine->port && same(&key.to, &mine->address))
		return request(ctx, mine, &p, &key);
	return reply(ctx, &p, &key);
}

SEC("tc") int lb_l2(struct __sk_buff *ctx)
{
	return run(ctx, 0);
}

SEC("tc") int lb_l3(struct __sk_buff *ctx)
{
	return run(ctx, 1);
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
