/* A ring buffer and programs that fill it, while there is room. A run of `send` sends a record, as a program does for a
 * packet. A run of `burst` sends many and wakes the reader now and then, so that a processor that runs it makes records
 * faster than a reader takes them; it returns how many found no room. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

struct event {
	__u32 number;
	__u32 source;
	__u64 bytes;
};

/* libbpf refuses a ring buffer with a type of its own: this keeps struct event in the object. */
const struct event *unused __attribute__((unused));

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} events SEC(".maps");

enum { BURST = 16384, A_WAKE_UP = 256 };

static __always_inline int put(struct __sk_buff *skb, __u32 number, __u64 flags)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return 0;
	event->number = number;
	event->source = skb->mark;
	event->bytes = skb->len;
	bpf_ringbuf_submit(event, flags);
	return 1;
}

struct burst {
	struct __sk_buff *skb;
	__u32 lost;
};

static long one(__u32 number, struct burst *burst)
{
	__u64 flags = number % A_WAKE_UP == A_WAKE_UP - 1 ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;

	burst->lost += !put(burst->skb, number, flags);
	return 0;
}

SEC("tc")
int burst(struct __sk_buff *skb)
{
	struct burst burst = { skb, 0 };

	bpf_loop(BURST, one, &burst, 0);
	return burst.lost;
}

SEC("tc")
int send(struct __sk_buff *skb)
{
	return !put(skb, skb->hash, 0);
}

char LICENSE[] SEC("license") = "GPL";
