---@meta cnf.policy

--- Source-based policy routing in eBPF: routers that send each packet where a policy says, before the kernel's own routing
--- does. IPv4 and IPv6 alike.
---
--- Which policy takes a packet, the first of these that matches:
---   conditional   any with proto, sport, dport, mark or vlan, or with both from and to: by `priority` (lower first), then the
---                 longer from, the longer to, more fields, the earlier in the set
---   source        from alone: the longest prefix
---   destination   to alone: the longest prefix
---   default       one that matches everything: `default` of the router, or of the set
---   the kernel's own routing
---
--- What always passes to the kernel: the box's own addresses, broadcast, multicast and link-local destinations, neighbour
--- discovery, what is not IP, and at every hook but egress packets whose TTL is used up (1 or less). Tagged frames match only
--- policies with their `vlan`. Fragments go as their first did; one seen without it matches policies that name no port.
---@class cnf.policy
local policy = {}

--- What a policy matches, where it sends packets, and what is done with them. What it does not say matches anything.
---@class cnf.Policy
---@field from? string Source: a network or an address. Bits set behind the prefix ("10.0.0.1/24") raise EINVAL.
---@field to? string Destination, likewise; of the same family as `from` (EINVAL).
---@field proto? string|integer "tcp", "udp", "icmp", "icmpv6", "sctp", "gre", "esp", "ah", "dccp", "udplite" or a number from 0 to 255.
---@field sport? integer Source port, of protocols that have ports; listed as given.
---@field dport? integer Destination port.
---@field mark? integer The packet's mark in the kernel, 32 bits, all compared.
---@field vlan? integer 802.1Q id, 0 to 4095. Routing strips the tag.
---@field via? string The neighbour to send to. An IPv4 policy may name an IPv6 one (RFC 5549). Without it the destination itself is the neighbour.
---@field dev? cnf.Link|string The link to send by, or its name in the router's namespace; without it the link of the kernel's route to `via`, looked up once.
---@field onlink? boolean `via` is on `dev` though no route says so. It holds for all of `nexthops`, or is said of one.
---@field nexthops? cnf.NextHop[] Several ways, at most 64, instead of `via` and `dev`; each flow keeps to one of them.
---@field action? "route"|"drop"|"pass" "route" by default, which needs via, dev or nexthops. "pass" ends the search: the kernel, and the programs behind, go on with the packet.
---@field priority? integer Of conditional policies: lower first, 1000 by default.
---@field mirror? cnf.Link|string Gets a copy of every packet that this policy takes, whatever its action.

--- One way of several.
---@class cnf.NextHop
---@field via? string The neighbour.
---@field dev? cnf.Link|string The link, or its name; at least one of the two.
---@field weight? integer Its share of the flows beside the others', 1 by default.
---@field onlink? boolean As in a policy.

--- Makes a router and attaches it. Hooks are "ingress" and "egress" of any link, with or without a link-layer header (tcx, or
--- clsact before Linux 6.6), and "primary" and "peer" of a netkit's primary end: what that end of the pair sends, routed where
--- the other end receives it. It stands last on its hooks. All hooks, and the links that its policies name, share one
--- namespace: that of the first hook. TTL falls by one, except at egress, where the kernel has done that.
---
--- A packet that a router has redirected is not routed again by that router, but it is by others that it meets. Two routers on
--- egress hooks of the same links, whose policies send a packet to each other's link, bounce it between them until the kernel's
--- limit of nested transmissions drops it: give such links one router with the policies of both.
---
--- `default` is a policy that matches everything; it stays through `set` and `clear`.
---
--- In a reload, the router of the same name in the same namespace goes on: its list begins empty, and what `set`, `add`,
--- `remove` and `clear` make of it becomes live at the commit, in one step, with the default and the hooks; `list` reads what
--- waits, `explain` and `stats` the live one. Flows stay with their hops, counters of unchanged policies go on. An instance that
--- was started with `up` routes on when its process is killed, and the next `up` takes over without losing a packet.
---
--- Raises EXDEV for hooks of several namespaces, EINVAL for an unknown hook or one that the link does not have, ENODEV when a
--- link is gone, EPERM without CAP_NET_ADMIN and CAP_BPF; for the default as `Router:set`. Nothing stays attached then.
---
--- ```lua
--- local router = policy.router { name = "edge", attach = { { eth0, "egress" } } }
--- router:set {
---   { from = "10.10.1.0/24", via = "10.0.0.2", dev = eth0 },
---   { from = "10.10.2.0/24", action = "drop" },
--- }
--- ```
---@param options {attach: {[1]: cnf.Link, [2]: "ingress"|"egress"|"primary"|"peer"}[], name?: string, default?: cnf.Policy} `name` is for messages, "router" by default.
---@return cnf.Router
function policy.router(options) end

--- A policy router. It is detached at the end.
---@class cnf.Router
---@field name string
local Router = {}

--- Replaces the whole set at once: every packet sees the old one or the new one. Counters of policies whose match is in both go
--- on, and their flows keep their hops: when next hops or weights change, only flows of a hop that is gone move at once, others
--- when they have been idle for a minute. Up to a million policies, and 64 shapes of
--- conditional ones for each family: a shape is which fields are matched, with which prefix lengths.
---
--- All is checked before anything changes. Raises EEXIST when two of the set match the same, naming both, EINVAL for a policy that contradicts itself, an unknown word (with the
--- nearest) or a bad value, EXDEV for a link of another namespace, ENODEV for one that is gone, ENETUNREACH for a next hop that no
--- route on its link reaches directly, unless onlink=true, E2BIG for too many policies or shapes.
---
--- A next hop whose link is down, without carrier, or deleted is not used: its flows take the others until it is back, and a
--- policy without any stops matching; the next that matches takes the packet.
---@param policies cnf.Policy[]
function Router:set(policies) end

--- Adds a policy, or replaces the one that matches the same; priority and action are no part of that. Errors as `set`.
---@param policy cnf.Policy
function Router:add(policy) end

--- Removes the policy that matches just this: a policy as `list` gives it, or its matching words alone. ENOENT when there is
--- none.
---@param policy cnf.Policy
function Router:remove(policy) end

--- The policies in their order, links filled in; without the router's default. It can be given to `set`.
---@return cnf.Policy[]
function Router:list() end

--- Removes all policies; the router's default stays.
function Router:clear() end

--- Packets and bytes since the router was made, in total.
---@class cnf.PolicyTotals
---@field routed {packets: integer, bytes: integer} Sent to a next hop.
---@field passed {packets: integer, bytes: integer} A policy said "pass".
---@field dropped {packets: integer, bytes: integer} A policy said "drop".
---@field unmatched {packets: integer, bytes: integer} No policy matched.
---@field local {packets: integer, bytes: integer} For the box itself, and what else always passes.
---@field too_big {packets: integer, bytes: integer} Did not fit the target's MTU; never sent.
---@field answered {packets: integer, bytes: integer} Of these, those whose sender was told the MTU (ICMP "fragmentation needed", ICMPv6 "packet too big"), about 950 a second at most.
---@field redirected {packets: integer, bytes: integer} Had been sent by this router at the hook before: not routed again.
---@field no_hop {packets: integer, bytes: integer} A policy that matched was skipped, its next hops being down.
---@field expired {packets: integer, bytes: integer} TTL was used up: left to the kernel.
---@field mirrored {packets: integer, bytes: integer} Copies.
---@field failed {packets: integer, bytes: integer} The kernel refused to send, copy or untag.

--- What each policy has taken, in the order of `list`, the router's default last; and `total`. Bytes are counted from the IP
--- header on; a packet that is cut into segments later (GSO) counts as these.
---@return {[integer]: {policy: cnf.Policy, packets: integer, bytes: integer}, total: cnf.PolicyTotals}
function Router:stats() end

--- Which policy and next hop would take a packet, and why, by a plain evaluation of the list. `policy` is nil where the kernel
--- routes, `hop` is set where a policy routes, `skipped` are policies that would have come first but for their next hops being
--- down. Without `proto` no policy with proto matches, and so on; `mark` is 0 unless given.
---@param packet {from: string, to: string, proto?: string|integer, sport?: integer, dport?: integer, mark?: integer, vlan?: integer} `from` and `to` are addresses.
---@return {policy?: cnf.Policy, hop?: cnf.NextHop, why: string, skipped: cnf.Policy[]}
function Router:explain(packet) end

--- Takes the router off its hooks. It can still be read.
function Router:detach() end

return policy
