---@meta cnf.link

--- Links: each is made in its final namespace, under its final name, with its addresses, and is up unless up=false. What is made
--- is owned and deleted at the end. (ip-link(8), include/uapi/linux/if_link.h)
---
--- Every constructor takes:
---   name           at most 15 bytes, without "/", ":", "%" and white space
---   netns          a Netns or the name of one; the host's when absent
---   address        "10.0.0.1/24", or an array of such; without a length it is the address alone (/32, /128); usable at once
---   up             true unless false
---   mac, mtu       "02:00:00:00:00:01", bytes
---   master         a bridge, bond or vrf of the same namespace: a Link or its name
---   alias, group, txqueuelen (packets)
---   numtxqueues, numrxqueues   of a veth 1 when absent: the kernel would make one for each processor and use one
---   addrgenmode    "eui64", "none", "stable-privacy" or "random": its IPv6 link-local address
---   index          chosen by the library when absent
---
--- Errors of all: EEXIST when the name is taken, EINVAL for an unknown option, a wrong type or value (with the nearest valid
--- word) or an MTU out of the kind's range, EADDRNOTAVAIL for a multicast or zero MAC,
--- EOPNOTSUPP when this kernel lacks the kind or the option, EPERM without CAP_NET_ADMIN.
---
--- Each kind is an option of the kernel's build, or a module, which the kernel loads by itself where there is one: a veth, bridge or
--- tun is nearly everywhere, a vrf, geneve, wireguard or ipvlan often is not. `cnfscript features` tells what is here.
--- `local` is a word of Lua: write `["local"] = "10.0.0.1"`.
---@class cnf.link
local link = {}

--- A pair of Ethernet devices, each the wire of the other; both ends are placed and addressed at creation. `peer` takes what
--- every constructor takes; without a name it is NAME-peer, without a namespace in the host's. (veth(4))
---
--- ```lua
--- local eth0, eth1 = link.veth {
---   name = "eth0", netns = client, address = { "10.0.0.1/24", "fd00::1/64" },
---   peer = { name = "eth1", netns = server, address = { "10.0.0.2/24", "fd00::2/64" } },
--- }
--- ```
---@param options {name: string, peer?: table, netns?: cnf.Netns|string, address?: string|string[]}
---@return cnf.Link primary, cnf.Link peer
function link.veth(options) end

--- A bridge. `ports` are links of its namespace, or their names. Times are in seconds.
---
--- ```lua
--- link.bridge { name = "br0", netns = client, ports = { "eth0" }, address = "10.1.0.1/24" }
--- ```
---@param options {name: string, ports?: (cnf.Link|string)[], stp?: "on"|"off"|boolean, priority?: integer, forward_delay?: integer, hello_time?: integer, max_age?: integer, ageing_time?: integer, vlan_filtering?: boolean, vlan_protocol?: "802.1q"|"802.1ad", vlan_default_pvid?: integer, group_fwd_mask?: integer, mcast_snooping?: boolean, mcast_querier?: boolean, nf_call_iptables?: boolean, nf_call_ip6tables?: boolean}
---@return cnf.Link
function link.bridge(options) end

--- A tagged link on another one. `link` is a name in the same namespace, or a Link of any.
---
--- ```lua
--- link.vlan { name = "eth0.7", netns = client, link = eth0, id = 7, address = "10.7.0.1/24" }
--- ```
---@param options {name: string, link: cnf.Link|string, id: integer, protocol?: "802.1q"|"802.1ad"}
---@return cnf.Link
function link.vlan(options) end

--- Ethernet over UDP (RFC 7348). `remote` is a unicast end point, `group` a multicast group, which needs `dev`. `dstport` is
--- 4789 unless given.
---
--- ```lua
--- link.vxlan { name = "vx0", netns = client, id = 42, remote = "10.0.0.2", dev = eth0 }
--- ```
---@param options {name: string, id: integer, remote?: string, group?: string, local?: string, dev?: cnf.Link|string, dstport?: integer, ttl?: integer, tos?: integer, learning?: boolean, ageing?: integer, maxaddress?: integer, proxy?: boolean, rsc?: boolean, l2miss?: boolean, l3miss?: boolean, udpcsum?: boolean, udp6zerocsumtx?: boolean, udp6zerocsumrx?: boolean, gbp?: boolean, external?: boolean}
---@return cnf.Link
function link.vxlan(options) end

--- Generic network virtualization encapsulation (RFC 8926).
---@param options {name: string, id: integer, remote: string, dstport?: integer, ttl?: integer, tos?: integer, external?: boolean, udpcsum?: boolean, udp6zerocsumtx?: boolean, udp6zerocsumrx?: boolean}
---@return cnf.Link
function link.geneve(options) end

--- A link that swallows what is sent over it.
---@param options {name: string}
---@return cnf.Link
function link.dummy(options) end

--- A link to redirect ingress traffic to, for queueing disciplines.
---@param options {name: string}
---@return cnf.Link
function link.ifb(options) end

--- Another MAC address on a link. `link` is a name in the same namespace, or a Link of any.
---@param options {name: string, link: cnf.Link|string, mode?: "private"|"vepa"|"bridge"|"passthru"|"source"}
---@return cnf.Link
function link.macvlan(options) end

--- Another link with the same MAC address, told apart by IP addresses. `link` is a name in the same namespace, or a Link of any.
---@param options {name: string, link: cnf.Link|string, mode?: "l2"|"l3"|"l3s", flags?: "bridge"|"private"|"vepa"}
---@return cnf.Link
function link.ipvlan(options) end

--- A routing domain: what comes in through its ports, and what is bound to it, is routed by `table` alone.
---@param options {name: string, table: integer, ports?: (cnf.Link|string)[]}
---@return cnf.Link
function link.vrf(options) end

--- Several links as one. `ports` must be down to be taken in; they are made so. Times are in milliseconds.
---@param options {name: string, mode?: "balance-rr"|"active-backup"|"balance-xor"|"broadcast"|"802.3ad"|"balance-tlb"|"balance-alb", ports?: (cnf.Link|string)[], miimon?: integer, updelay?: integer, downdelay?: integer, arp_interval?: integer, primary?: cnf.Link|string, fail_over_mac?: "none"|"active"|"follow", xmit_hash_policy?: string, num_peer_notif?: integer, all_ports_active?: boolean, min_links?: integer, lacp_rate?: "slow"|"fast"}
---@return cnf.Link
function link.bond(options) end

--- A device whose other end a program holds, through /dev/net/tun. It is persistent until deleted. `mode` "tun" carries IP
--- packets, "tap" Ethernet frames.
---@param options {name: string, mode?: "tun"|"tap", packet_info?: boolean, vnet_hdr?: boolean, multi_queue?: boolean}
---@return cnf.Link
function link.tun(options) end

--- IP in GRE over IPv4 (RFC 2784). `key` is both ikey and okey.
---@param options {name: string, remote?: string, local?: string, dev?: cnf.Link|string, key?: integer, ikey?: integer, okey?: integer, ttl?: integer, tos?: integer, pmtudisc?: boolean, external?: boolean}
---@return cnf.Link
function link.gre(options) end

--- Ethernet in GRE over IPv4. Options as of `link.gre`.
---@param options table
---@return cnf.Link
function link.gretap(options) end

--- IP in GRE over IPv6.
---@param options {name: string, remote?: string, local?: string, dev?: cnf.Link|string, key?: integer, ikey?: integer, okey?: integer, ttl?: integer, encap_limit?: integer, external?: boolean}
---@return cnf.Link
function link.ip6gre(options) end

--- Ethernet in GRE over IPv6. Options as of `link.ip6gre`.
---@param options table
---@return cnf.Link
function link.ip6gretap(options) end

--- IPv4 in IPv4 (RFC 2003).
---@param options {name: string, remote?: string, local?: string, dev?: cnf.Link|string, ttl?: integer, tos?: integer, pmtudisc?: boolean, external?: boolean}
---@return cnf.Link
function link.ipip(options) end

--- IPv6 in IPv4 (RFC 4213). Options as of `link.ipip`.
---@param options table
---@return cnf.Link
function link.sit(options) end

--- IPv4 or IPv6 in IPv6 (RFC 2473).
---@param options {name: string, remote?: string, local?: string, dev?: cnf.Link|string, mode?: "any"|"ipip6"|"ip6ip6", ttl?: integer, encap_limit?: integer, external?: boolean}
---@return cnf.Link
function link.ip6tnl(options) end

--- An encrypted tunnel (wireguard(7)). Keys and peers are set with `wg`, run through `Netns:exec`.
---@param options {name: string}
---@return cnf.Link
function link.wireguard(options) end

--- A link. Namespace and index say which, wherever it is renamed or moved to. Methods raise ENODEV once it is gone.
---
--- A link that this script made goes at the end; on any other, and in a namespace that is not ours, what was changed is put
--- back: attributes that nobody else has changed since, and the addresses and routes that a change took with it.
---@class cnf.Link
---@field name string
---@field index integer Within its namespace; the ends of a pair have distinct ones.
---@field netns cnf.Netns
---@field kind string "veth"; "" for hardware and loopback.
local Link = {}

--- Sets it up.
function Link:up() end

--- Sets it down. The kernel removes its IPv6 addresses, except link-local ones on request, and its routes.
function Link:down() end

--- Changes attributes, all in one request. master=false takes it out of its bridge, bond or vrf; alias="" removes the alias.
--- EINVAL or ERANGE with the kernel's sentence for a value out of range.
---
--- ```lua
--- eth0:set { mtu = 1400, alias = "to the server" }
--- ```
---@param options {mtu?: integer, mac?: string, master?: cnf.Link|string|false, alias?: string, txqueuelen?: integer, group?: integer, addrgenmode?: string, promisc?: boolean, up?: boolean} mtu in bytes, txqueuelen in packets.
function Link:set(options) end

--- Adds an address, usable at once: an IPv6 one skips duplicate address detection. EEXIST when the link has it, EINVAL for IPv6
--- on an MTU below 1280.
---@param cidr string "10.0.0.1/24"; a bare address is taken with its whole length (/32, /128).
function Link:add_address(cidr) end

--- Removes an address. A primary IPv4 address takes its secondaries with it. EADDRNOTAVAIL when the link does not have it.
---@param cidr string
function Link:delete_address(cidr) end

--- Its addresses, both families.
---@return {address: string, peer?: string, broadcast?: string, scope: string, secondary: boolean, tentative: boolean, permanent: boolean}[]
function Link:addresses() end

--- What the kernel says about it now. `link` is the index of a pair's other end, or of the link below; `options` are the kind's
--- own, by the words of its constructor.
---@return {name: string, index: integer, kind: string, netns: string, mac?: string, mtu: integer, up: boolean, carrier: boolean, running: boolean, operstate: string, master?: string, link?: integer, link_netnsid?: integer, group: integer, alias?: string, txqueuelen: integer, numtxqueues: integer, numrxqueues: integer, qdisc?: string, promiscuity: integer, min_mtu: integer, max_mtu: integer, flags: integer, options: table}
function Link:info() end

--- Its counters since it was made: packets, bytes, errors, dropped and the others of `struct rtnl_link_stats64`.
---@return {rx: table<string, integer>, tx: table<string, integer>}
function Link:stats() end

--- Puts a queueing discipline at its root, in place of the one that is there, or the clsact or ingress hook on it; without
--- options, what there is. Shares are 0 to 1 or "5%", rates bits a second or "10mbit", sizes bytes or "64k". EOPNOTSUPP when
--- this kernel lacks it. (tc(8), tc-netem(8), tc-tbf(8), tc-htb(8), tc-fq(8), tc-fq_codel(8))
---
---   netem     delay, jitter, delay_correlation, loss, loss_correlation, gemodel={p, r, loss_bad, loss_good}, duplicate, corrupt,
---             reorder (each with _correlation), gap, rate, limit (packets), seed (Linux 6.6)
---   tbf       rate, burst, and limit (bytes) or latency
---   htb       rate, ceil, burst: one class that everything goes through
---   fq        limit, flow_limit (packets), quantum, initial_quantum (bytes), maxrate
---   fq_codel  limit (packets), flows, target, interval, quantum, ecn
---   pfifo     limit (packets)
---   clsact, ingress
---
--- ```lua
--- eth0:qdisc { kind = "tbf", rate = "10mbit", burst = "32k", latency = "50ms" }
--- ```
---@param options? table `kind` and what that takes.
---@return {kind: string, handle: string, parent: string, bytes: integer, packets: integer, drops: integer}[]? disciplines Without options.
function Link:qdisc(options) end

--- Gives it another name. EEXIST when that is taken; EBUSY on a link that is up, before Linux 6.2.
---@param name string
function Link:rename(name) end

--- Moves it to another namespace: it arrives down and without addresses. Making a link where it belongs is faster. EPERM for
--- a link that this script did not make, EEXIST when its name is taken there.
---@param netns cnf.Netns|string
function Link:move(netns) end

--- The other end of a veth or netkit pair, in whatever namespace; nil for any other kind. ENOENT when it is in a namespace
--- without a name.
---@return cnf.Link?
function Link:peer() end

--- Deletes it, and the other end of a pair with it. EPERM for a link that this script did not make.
function Link:delete() end

return link
