# What is there before a script comes: somebody else's links, addresses, routes, rules, settings, disciplines and filters.
# $1: the namespace that takes the host's part, $2: the far end. Both exist already.
set -e
for ns in "$1" "$2"; do
  nsenter --net="/run/netns/$ns" sh -e <<'NS'
echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad
ip link set lo up
NS
done
ip -n "$1" -batch - <<NS
link add f0 index 10 address 02:00:00:00:f0:00 type veth peer name g0 netns $2
link add f1 index 11 address 02:00:00:00:f1:00 type veth peer name g1 netns $2
link add f2 index 12 address 02:00:00:00:f2:00 type veth peer name g2 netns $2
link add f3 index 13 address 02:00:00:00:f3:00 type veth peer name g3 netns $2
link set f0 up
link set f1 up alias theirs txqueuelen 500
link set f2 up
link set f3 up
link set f3 down
NS
ip -n "$2" -batch - <<NS
link set g0 up
link set g1 up
link set g2 up
link set g3 up
NS
nsenter --net="/run/netns/$1" sh -e <<'NS'
cd /proc/sys/net
# Turning forwarding off again would set it.
echo 0 > ipv4/conf/all/accept_redirects
echo 1 > ipv4/conf/f1/forwarding
echo 7 > ipv6/conf/f0/hop_limit
echo 0 > ipv6/conf/f0/accept_ra
ip -batch - <<'IP'
address add 10.1.0.1/24 dev f0
address add 10.1.0.2/24 dev f0
address add 10.1.0.3/24 dev f0 label f0:x noprefixroute
address add fd01::1/64 dev f0 nodad
address add 10.3.0.1/24 dev f1
address add fd03::1/64 dev f1 nodad
address add fd03::2/64 dev f1 nodad valid_lft forever preferred_lft 0
address add 10.4.0.1 peer 10.4.0.2/32 dev f2
route add 10.50.0.0/16 via 10.1.0.9
route add default via 10.1.0.254 metric 500 mtu 1400 advmss 1300 proto static
route add 10.51.0.0/16 via 10.3.0.9 dev f1 src 10.3.0.1 tos 0x10
route add 10.52.0.0/16 nexthop via 10.1.0.8 dev f0 weight 3 nexthop via 10.3.0.8 dev f1 weight 1
route add 10.53.0.0/16 via 10.99.0.1 dev f1 onlink initcwnd 20
route add 10.54.0.0/16 dev f1 scope link table 77
route add blackhole 10.55.0.0/16
route add fd50::/48 via fd01::9
route add fd51::/48 via fd03::9 dev f1 metric 77 mtu 1300 table 77
rule add from 10.7.0.0/16 lookup 77 priority 1000
rule add fwmark 7 lookup 77 priority 1001
neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev f0 nud permanent
neigh add 10.3.0.9 lladdr 02:00:00:00:00:09 dev f1 nud permanent
neigh add fd03::9 lladdr 02:00:00:00:00:09 dev f1 nud permanent
neigh add proxy 10.3.0.99 dev f1
IP
ip -6 rule add from fd07::/48 lookup 77 priority 1000
tc qdisc add dev f0 root tbf rate 80mbit burst 10000 limit 20000
tc qdisc add dev f2 clsact
tc filter add dev f2 ingress pref 7 bpf bytecode '1,6 0 0 4294967295' classid 1:1
NS
