---@meta cnf.police

--- Rate limits: packets over the rate are dropped, not queued (`Link:qdisc` with tbf or htb queues). As the police action of tc(8).
---
--- On the tc hooks the library's programs run in the order chaos, police, flow, then a script's own, the policy router last; at XDP
--- filters, police, forward.
---@class cnf.police
local police = {}

--- What `police.limit` takes: one of rate and pps.
---@class cnf.LimitOptions
---@field link cnf.Link
---@field direction? "ingress"|"egress" "ingress" by default.
---@field hook? "tc"|"xdp" "tc" by default: tcx, or clsact before Linux 6.6. "xdp" is cheaper, for what comes in.
---@field rate? integer|string Bits a second, or "10mbit". With the link header, and of a packet of several segments (GSO) all headers.
---@field pps? integer Packets a second; segments count each.
---@field burst? integer|string What a full bucket holds, in bytes ("64k") or, with pps, packets: a tenth of a second's by default, at least 68k, so that a packet of many segments fits, or 5 packets. What is larger than the burst never passes.
---@field match? cnf.Match IP packets only are limited, whatever it says. `mark` on tc hooks only.
---@field per? "source"|"destination"|"flow" A bucket for each address, or each flow; one for all by default.
---@field buckets? integer How many of these are kept, 65536 by default: the one not used for longest is forgotten, and starts anew, full.

--- Limits what passes a link. Several limits on one hook follow each other, each on what the one before it let through.
---
--- Raises EINVAL for an unknown word (with the nearest), a bad value, for both or none of rate and pps, for xdp at egress; EBUSY at
--- XDP when another program holds the hook, or for a seventh limit; ENODEV; EPERM without CAP_NET_ADMIN and CAP_BPF.
---
--- ```lua
--- police.limit { link = eth0, direction = "ingress", rate = "10mbit", per = "source" }
--- ```
---@param options cnf.LimitOptions
---@return cnf.Limit
function police.limit(options) end

--- A limit on a link. It is taken off at the end.
---@class cnf.Limit
---@field link cnf.Link
---@field direction "ingress"|"egress"
---@field hook "tc"|"xdp"
local Limit = {}

--- Changes the rate, in the unit it has; buckets are full then. EINVAL for the other unit.
---@param options {rate?: integer|string, pps?: integer, burst?: integer|string}
function Limit:set(options) end

--- What passed and what was dropped.
---@return {conformed: cnf.Counter, exceeded: cnf.Counter}
function Limit:stats() end

--- Takes it off. Nothing happens when it is off already; its counters can still be read.
function Limit:detach() end

return police
