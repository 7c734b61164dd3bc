# All that a script could have changed in the namespace this runs in, as text that is equal when it is.
ip -d link
# IPv4's in their order: the first of a subnet is its primary one. The rest of a lifetime is no difference.
lifetimes='s/(valid_lft|preferred_lft) [0-9]+sec/\1 some/g'
ip -4 address | sed -E "$lifetimes"
ip -6 -oneline address | sed -E "$lifetimes" | sort
ip route show table all | sort
ip -6 route show table all | sed -E 's/ expires [0-9]+sec//' | sort
ip rule
ip -6 rule
ip neighbour show nud permanent | sort
ip neighbour show proxy | sort
tc qdisc
for link in $(ls /proc/sys/net/ipv4/conf); do
  case $link in all|default) continue;; esac
  for side in ingress egress; do tc filter show dev "$link" "$side" 2>&1 | grep -v 'no such qdisc\|Parent Qdisc' | sed "s/^/$link $side /"; done
done
grep -rs . /proc/sys/net | grep -v 'nf_conntrack_count\|_key:\|/mc_forwarding:' | sort
