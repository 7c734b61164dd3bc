/* A program under a licence that the kernel's GPL-only helpers are not for. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

SEC("tc") int licence(struct __sk_buff *skb) {
  bpf_printk("packet");
  return 0;
}

char LICENSE[] SEC("license") = "MIT";
