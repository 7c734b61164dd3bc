SEC("tc") int nothing(struct __sk_buff *skb) { return 0; }
