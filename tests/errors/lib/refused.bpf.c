/* Programs that the verifier refuses, one for each usual mistake. Each is loaded alone, by a script of its name. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct counter {
  __u64 packets;
  __u64 bytes;
};

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 16);
  __type(key, __u32);
  __type(value, struct counter);
} counters SEC(".maps");

struct table {
  __u32 cells[64];
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct table);
} tables SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 4096);
} events SEC(".maps");

const volatile __u32 limit = 7;

/* Reads the frame without looking where it ends. */
SEC("?tc") int packet_end(struct __sk_buff *skb) {
  struct ethhdr *eth = (void *)(long)skb->data;
  return eth->h_proto == bpf_htons(ETH_P_IP) ? TC_ACT_OK : TC_ACT_SHOT;
}

/* Compares one header with the end, then reads the next. */
SEC("?xdp") int packet_short(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  struct ethhdr *eth = data;
  if ((void *)(eth + 1) > end)
    return XDP_DROP;
  struct iphdr *ip = (void *)(eth + 1);
  return ip->protocol;
}

/* A header length that the packet says, added without a bound. */
SEC("?xdp") int packet_offset(struct xdp_md *ctx) {
  void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
  if (data + 8 > end)
    return XDP_DROP;
  long offset = *(long *)data;
  __u8 *byte = data + offset;
  if ((void *)(byte + 1) > end)
    return XDP_DROP;
  return *byte;
}

/* Keeps a packet pointer across a helper that may move the packet. */
SEC("?tc") int packet_moved(struct __sk_buff *skb) {
  void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
  struct ethhdr *eth = data;
  if ((void *)(eth + 1) > end)
    return TC_ACT_OK;
  bpf_skb_pull_data(skb, 64);
  return eth->h_proto;
}

/* Uses what a lookup gave without asking whether it found anything. */
SEC("?tc") int null_check(struct __sk_buff *skb) {
  __u32 key = skb->mark;
  struct counter *counter = bpf_map_lookup_elem(&counters, &key);
  counter->packets++;
  return TC_ACT_OK;
}

/* An index that comes from outside. */
SEC("?tc") int map_index(struct __sk_buff *skb) {
  __u32 key = 0;
  struct table *table = bpf_map_lookup_elem(&tables, &key);
  if (!table)
    return TC_ACT_OK;
  return table->cells[skb->mark];
}

/* One element too far. */
SEC("?tc") int map_end(struct __sk_buff *skb) {
  __u32 key = 0;
  struct table *table = bpf_map_lookup_elem(&tables, &key);
  if (!table || skb->mark > 64)
    return TC_ACT_OK;
  return table->cells[skb->mark];
}

/* Never ends. */
SEC("?tc") int endless(struct __sk_buff *skb) {
  volatile int n = 1;
  while (n)
    ;
  return TC_ACT_OK;
}

/* Ends, but far too late to follow. */
SEC("?tc") int complexity(struct __sk_buff *skb) {
  volatile __u32 sum = 0;
  for (__u32 i = 0; i < 100000000; i++)
    sum += i;
  return sum;
}

/* A helper of XDP in a tc program. */
SEC("?tc") int helper_type(struct __sk_buff *skb) {
  return bpf_xdp_adjust_head((void *)skb, 4);
}

/* A helper given something else than it takes. */
SEC("?tc") int helper_argument(struct __sk_buff *skb) {
  return bpf_map_delete_elem(&counters, (void *)(long)skb->mark);
}

/* A length that a helper cannot take as it is. */
SEC("?tc") int helper_length(struct __sk_buff *skb) {
  char buffer[64];
  bpf_skb_load_bytes(skb, 0, buffer, skb->mark | 1);
  return buffer[0];
}

/* More bytes than the buffer has. */
SEC("?tc") int stack_end(struct __sk_buff *skb) {
  char buffer[8];
  bpf_skb_load_bytes(skb, 0, buffer, 16);
  return buffer[0];
}

static __noinline int inner(struct __sk_buff *skb) {
  volatile char big[320];
  big[skb->mark & 255] = 1;
  return big[skb->priority & 255];
}

/* Two functions whose stacks do not fit together. */
SEC("?tc") int stack_size(struct __sk_buff *skb) {
  volatile char big[320];
  big[skb->mark & 255] = 2;
  return inner(skb) + big[skb->priority & 255];
}

/* A field that this type of program may not write. */
SEC("?tc") int context_field(struct __sk_buff *skb) {
  skb->len = 0;
  return TC_ACT_OK;
}

/* An index into the context. */
SEC("?tc") int context_pointer(struct __sk_buff *skb) {
  return ((volatile __u32 *)skb)[skb->mark & 7];
}

/* A number used as an address. */
SEC("?tc") int not_a_pointer(struct __sk_buff *skb) {
  return *(volatile int *)(long)skb->mark;
}

/* A constant that the loader has set for good. */
SEC("?tc") int read_only(struct __sk_buff *skb) {
  *(volatile __u32 *)&limit = 8;
  return TC_ACT_OK;
}

/* A record that is neither submitted nor discarded. */
SEC("?tc") int leak(struct __sk_buff *skb) {
  __u32 *record = bpf_ringbuf_reserve(&events, 4, 0);
  if (!record)
    return TC_ACT_OK;
  *record = skb->mark;
  return TC_ACT_OK;
}

/* Not every way through it sets what it returns. */
SEC("?tc") int no_result(struct __sk_buff *skb) {
  asm volatile("exit");
  __builtin_unreachable();
}

char LICENSE[] SEC("license") = "GPL";
