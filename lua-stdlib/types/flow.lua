---@meta cnf.flow

--- Accounting by flow: what passes a link, told apart by addresses, protocol, ports and direction.
---@class cnf.flow
local flow = {}

--- What `flow.account` takes.
---@class cnf.FlowOptions
---@field link cnf.Link
---@field direction? "ingress"|"egress"|"both" "both" by default.
---@field match? cnf.Match IP packets only are counted, whatever it says.
---@field size? integer Flows that are kept, 65536 by default; the one not seen for longest is forgotten.
---@field sample? number|string The share of packets that `on_sample` is called for, each by chance: "1/100", "5%".
---@field on_sample? fun(sample: cnf.FlowSample)

--- A packet of a sample. `time` is in seconds since 1970; a packet of several segments (GSO) is one, with all their `packets`.
---@class cnf.FlowSample
---@field from string
---@field to string
---@field proto string|integer
---@field sport? integer
---@field dport? integer
---@field direction "ingress"|"egress"
---@field bytes integer From the IP header on.
---@field packets integer
---@field ttl integer
---@field flags? string[] Of TCP.
---@field time number

--- One direction of a flow. Fragments behind the first have the ports of the first, if that was seen.
---@class cnf.Flow
---@field from string
---@field to string
---@field proto string|integer "tcp", "udp", "icmp" ..., or its number.
---@field sport? integer
---@field dport? integer
---@field direction "ingress"|"egress"
---@field packets integer Segments, of a packet that is cut later (GSO).
---@field bytes integer From the IP header on.
---@field first number When it was first seen, in seconds since 1970.
---@field last number When it was last seen.
---@field flags? string[] Of TCP, those of all packets: "FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR".

--- Counts what passes a link, on the tc hooks (tcx, or clsact before Linux 6.6). The library's programs run there in the order chaos,
--- police, flow, then a script's own, the policy router last: what a limit drops is not counted, what a filter does is.
---
--- Raises EINVAL for an unknown word (with the nearest), a bad value, or one of sample and on_sample alone; ENODEV; EPERM without
--- CAP_NET_ADMIN and CAP_BPF.
---
--- ```lua
--- local flows = flow.account { link = eth0 }
--- for _, f in ipairs(flows:list()) do print(f.from, f.to, f.bytes) end
--- ```
---@param options cnf.FlowOptions
---@return cnf.Flows
function flow.account(options) end

--- The flows of a link. It is taken off at the end.
---@class cnf.Flows
---@field link cnf.Link
---@field direction "ingress"|"egress"|"both"
local Flows = {}

--- The flows that are kept, the largest first.
---@param options? {by?: "bytes"|"packets"|"first"|"last", most?: integer} By bytes, all of them, by default.
---@return cnf.Flow[]
function Flows:list(options) end

--- All packets together, those of forgotten flows too; `sampled` went to `on_sample`, `missed` found no room on their way there.
---@return {packets: integer, bytes: integer, sampled: integer, missed: integer}
function Flows:stats() end

--- Forgets all flows.
function Flows:clear() end

--- Takes it off. Nothing happens when it is off already; its flows can still be read.
function Flows:detach() end

return flow
