---@meta cnf.chaos

--- Faults on links: packets lost, duplicated, corrupted, by programs on the tc hooks (tcx, or clsact before Linux 6.6).
---
--- A fault ends when it is healed, when its `duration` is over, by the kernel's own clock, or with its script, even a killed one.
--- It touches only what it matches. Several on one hook run in the order of their injection, each on what the one before it let
--- through, and before every other program there: the order of the library is chaos, police, flow, then the script's own, and the
--- policy router last.
---
--- Its fate is a function of the seed and of how many packets matched before: the same packets in the same order meet the same
--- faults again. A packet that is cut into segments later (GSO) counts as one.
---@class cnf.chaos
local chaos = {}

--- Gilbert-Elliott's model of loss in bursts: a good and a bad state, and a chance to lose a packet in each. The words are
--- those of the netem discipline (tc-netem(8)).
---@class cnf.GilbertElliott
---@field p number|string The share of packets at which the state turns bad.
---@field r? number|string The share at which it turns good again; 1 - p by default.
---@field loss_bad? number|string Lost in the bad state, "100%" by default.
---@field loss_good? number|string Lost in the good state, 0 by default.

--- What is done to packets; one or more of loss, gemodel, blackhole, duplicate and corrupt. Shares are 0 to 1 or "5%".
---@class cnf.FaultOptions
---@field direction? "ingress"|"egress"|"both" "egress" by default. A fault on both counts and draws for both together.
---@field loss? number|string|{every: integer} The share that is lost, each packet by itself; or every n-th.
---@field gemodel? cnf.GilbertElliott Loss in bursts, instead of `loss`.
---@field blackhole? boolean All is lost.
---@field duplicate? number|string The share of which a copy comes by the same hook.
---@field corrupt? number|string The share in which one bit behind the IP header is flipped. Between veth links the kernel leaves TCP's and UDP's checksums to a card that is not there, and the receiver looks at none: what is flipped arrives, unless `ethtool -K LINK tx off` has them computed.
---@field match? cnf.Match Every packet by default, ARP and neighbour discovery too.
---@field seed? integer 0 or more; a random one by default, which `info` tells.
---@field duration? number|string Seconds, "250ms", "2s"; without, until it is healed or the script ends.

--- Puts a fault on a link. A later load of the script that says it again finds it as it is: with its seed, its counters and the time
--- that it has left; one that has ended, or was healed, begins anew.
---
--- Raises EINVAL for an unknown word (with the nearest), for nothing to inject, for two ways of loss, for delay, jitter, reorder and
--- rate, which are not there yet (`Link:qdisc` does them where the kernel has netem); ENODEV when the link is gone; EPERM without
--- CAP_NET_ADMIN and CAP_BPF.
---
--- ```lua
--- local fault = chaos.inject(eth0, { direction = "egress", loss = "5%", duration = "10s" })
--- fault:heal()
--- ```
---@param link cnf.Link
---@param options cnf.FaultOptions
---@return cnf.Fault
function chaos.inject(link, options) end

--- Heals every fault of this script.
function chaos.heal_all() end

--- A fault on a link.
---@class cnf.Fault
---@field link cnf.Link
---@field direction "ingress"|"egress"|"both"
---@field seed integer What replays it.
local Fault = {}

--- Ends it. Nothing happens when it is over already.
function Fault:heal() end

--- What it has done, and whether it still does. `matched` counts the packets it was about, `failed` those that the kernel could
--- not copy or change, `remaining` is in seconds, of a fault with a duration.
---@return {link: string, direction: string, seed: integer, active: boolean, remaining?: number, matched: integer, lost: integer, duplicated: integer, corrupted: integer, failed: integer}
function Fault:info() end

return chaos
