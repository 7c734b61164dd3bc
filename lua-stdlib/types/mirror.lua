---@meta cnf.mirror

--- Copies of packets to another link: all of a link's, some of them, or those of some flows (bpf/mirror.bpf.c). The original goes
--- on unchanged, whatever becomes of the copy.
---@class cnf.mirror
local mirror = {}

--- Which packets a program of the library is meant for. What is not said matches anything; nothing at all takes every frame, IP
--- or not. Any word but `mark` needs an IP packet.
---@class cnf.Match
---@field from? string Source: a CIDR or an address.
---@field to? string Destination, of the same family.
---@field proto? string|integer "tcp", "udp", "icmp" ... or a number from 0 to 255.
---@field sport? integer Source port; of fragments that of the first, if that one was seen.
---@field dport? integer Destination port.
---@field port? integer Either port.
---@field mark? integer The packet's mark in the kernel.
---@field vlan? integer 802.1Q id, 0 to 4095. Without it tagged frames match as untagged ones do.

--- What `mirror.to` takes.
---@class cnf.MirrorOptions
---@field from cnf.Link The link whose packets are copied.
---@field to cnf.Link Where the copies leave: another link of the same namespace (EXDEV). The other end of a veth pair, in a namespace of its own, sees them as they were on `from`, link header and VLAN tag included.
---@field direction? "ingress"|"egress"|"both" What comes in by `from`, what goes out, or both, as without the option.
---@field sample? string|number The share of the matching packets that is copied, each by chance: "1/64", "5%", 0.05. All of them without it.
---@field match? cnf.Match
---@field name? string Tells several mirrors of one link from each other: the name of `to` by default. Two of one name on a hook: EEXIST.
---@field first? boolean The order words of `bpf.attach`. Without any, packets are copied at ingress before other programs but chaos see them, and at egress behind those that are there.
---@field last? boolean
---@field before? cnf.Attachment|cnf.Program|integer
---@field after? cnf.Attachment|cnf.Program|integer

--- Copies packets that pass `from` out of `to` (bpf_clone_redirect, net/core/filter.c). It is attached with tcx, before Linux 6.6
--- with clsact, and taken off at the end. A copy is not copied again by any mirror, so that two that face each other end.
---
--- Copies larger than the MTU of the other end of `to` are lost there. Raises EINVAL for an unknown word or a bad value, for
--- the same link twice, and for copies of frames without a link header (tun, wireguard) to a link that needs one; EXDEV, ENODEV,
--- EEXIST; EPERM without CAP_NET_ADMIN and CAP_BPF.
---
--- ```lua
--- local tap = link.dummy { name = "tap0", netns = client }
--- mirror.to { from = eth0, direction = "ingress", to = tap, sample = "1/64", match = { proto = "tcp" } }
--- ```
---@param options cnf.MirrorOptions
---@return cnf.Mirror
function mirror.to(options) end

--- A mirror.
---@class cnf.Mirror
---@field name string
---@field from cnf.Link
---@field to cnf.Link
local Mirror = {}

--- Frames and their bytes, link header included: `seen` passed the hooks, `mirrored` were copied, `failed` the kernel refused to
--- copy (`to` is down or gone). A packet that is cut into segments later (GSO) counts as so many frames.
---@return {seen: {packets: integer, bytes: integer}, mirrored: {packets: integer, bytes: integer}, failed: {packets: integer, bytes: integer}}
function Mirror:stats() end

--- Ends the copying. Its counters can still be read.
function Mirror:detach() end

return mirror
