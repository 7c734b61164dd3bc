---@meta cnf.forward

--- Forwarding at XDP: from link to link by the kernel's own routes and neighbours, before the kernel has made packets of the frames.
---@class cnf.forward
local forward = {}

--- Lets a set of links forward to each other. What the kernel's tables say is done (bpf_fib_lookup, net/core/filter.c): rules, routes
--- and neighbours stay where they are, net.ipv4.ip_forward and net.ipv6.conf.all.forwarding must be on. TTL falls by one.
---
--- Everything else goes to the network stack: what is for the box itself, of unknown neighbour (which the stack resolves), too big
--- (which it answers), with TTL used up, tagged, with IP options, not unicast IP, or out by a link that does not take part. What
--- is forwarded passes no tc hook, netfilter, conntrack or the policy router on its way.
---
--- With a veth among the links they run in the network stack, unless mode="native": frames of a veth pair carry checksums that a
--- card was to finish, so senders need `ethtool -K LINK tx off` there. A filter on one of the links has to be in the same mode.
---
--- Raises EINVAL for an unknown word, for no links, and for a link without a link header; EXDEV for links of several namespaces;
--- EBUSY when another XDP program holds a hook, or the link forwards already; ENODEV; EPERM without CAP_NET_ADMIN and CAP_BPF.
---@param options {links: cnf.Link[], mode?: "native"|"generic"}
---@return cnf.Forward
function forward.xdp(options) end

--- Links that forward to each other. It is taken off at the end.
---@class cnf.Forward
---@field links cnf.Link[]
local Forward = {}

--- What became of frames: `forwarded`, or left to the network stack: `stack` (local, no unicast IP, no route ...), `no_neighbour`,
--- `too_big`, `expired`, `no_port`. Bytes are counted from the IP header on.
---@return {forwarded: cnf.Counter, stack: cnf.Counter, no_neighbour: cnf.Counter, too_big: cnf.Counter, expired: cnf.Counter, no_port: cnf.Counter}
function Forward:stats() end

--- Where it stands, link by link.
---@return {link: string, mode: "native"|"generic", stage: integer}[]
function Forward:info() end

--- Takes it off; the network stack forwards on. Nothing happens when it is off already.
function Forward:detach() end

return forward
