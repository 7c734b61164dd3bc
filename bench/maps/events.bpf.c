/* A ring buffer and a program that fills it: each run sends a record, as a program does for a packet, if there is room. */
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

SEC("tc")
int send(struct __sk_buff *skb)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event)
		return 1;
	event->number = skb->hash;
	event->source = skb->mark;
	event->bytes = skb->len;
	bpf_ringbuf_submit(event, 0);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
