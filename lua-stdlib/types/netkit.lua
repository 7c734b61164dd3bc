---@meta cnf.netkit

--- netkit: pairs of links made for eBPF, Linux 6.7 or newer. A program on an end runs when that end transmits; without one the
--- policy decides. (drivers/net/netkit.c)
---@class cnf.netkit
local netkit = {}

--- A pair of netkit links, both ends placed and addressed at creation. It takes what every constructor of `link` takes, and
---
---   mode          "l3", the default: IP packets, no MAC addresses, no ARP; or "l2": Ethernet frames
---   policy        what happens to packets of this end while no program is there: "forward", the default, or "blackhole"
---   scrub         "default" clears the mark and priority of packets that cross, "none" keeps them (Linux 6.13)
---   headroom, tailroom   bytes kept free around packets (Linux 6.14)
---   peer          a table as of any constructor, with `policy` and `scrub` of its own
---
--- EOPNOTSUPP on an older kernel, saying which is needed; EINVAL for a MAC in l3 mode.
---
--- ```lua
--- local primary, peer = netkit.pair {
---   name = "nk0", netns = client, mode = "l3", address = "10.3.0.1/24",
---   peer = { name = "nk1", netns = server, address = "10.3.0.2/24" },
--- }
--- ```
---@param options {name: string, mode?: "l3"|"l2", policy?: "forward"|"blackhole", scrub?: "none"|"default", headroom?: integer, tailroom?: integer, peer?: table, netns?: cnf.Netns|string, address?: string|string[]}
---@return cnf.Link primary, cnf.Link peer
function netkit.pair(options) end

--- Attaches a program to an end of a pair. Both are attached through the primary's Link: "primary" runs on what the primary end
--- sends, "peer" on what the peer sends. Order and slots are as of `tcx.attach`. EACCES for a peer's Link, ENXIO for a link that
--- is no netkit, EEXIST for a program that is there already, ESTALE for a stale `expected_revision`. (kernel/bpf/mprog.c)
---@param link cnf.Link The primary end.
---@param side "primary"|"peer"
---@param program cnf.Program
---@param options? {slot?: string, first?: boolean, last?: boolean, before?: cnf.Attachment|cnf.Program|integer, after?: cnf.Attachment|cnf.Program|integer, expected_revision?: integer} The slot names the attachment across reloads: the program's name by default.
---@return cnf.Attachment
function netkit.attach(link, side, program, options) end

--- The programs on an end, in the order they run.
---@param link cnf.Link The primary end.
---@param side "primary"|"peer"
---@return {revision: integer, programs: {id: integer, name: string, tag: string, link_id: integer}[]}
function netkit.query(link, side) end

return netkit
