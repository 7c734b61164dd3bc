---@meta cnf.lb

--- Load balancing in eBPF: connections to one address and port are shared among backends, by Maglev hashing (Eisenbud et al.,
--- NSDI 2016), and each stays with its backend. TCP and UDP, IPv4 and IPv6 (bpf/lb.bpf.c).
---
--- The balancer stands where requests come in and replies go out. It rewrites the destination of requests, address and port, and
--- the source of replies; the kernel, or the policy router behind it, carries them on. Backends see the client's own address, so
--- their way back has to lead through the balancer. The virtual address is the balancer's own (on `lo`, if clients are to resolve
--- it) or one that is routed to it.
---@class cnf.lb
local lb = {}

--- One of the servers that share the connections.
---@class cnf.Backend
---@field address string IPv4 or IPv6 as the service's; unicast, not link-local.
---@field port? integer The service's port by default.
---@field weight? integer Its share of new connections beside the others', 0 to 65535, 1 by default; with 0 it gets none.

--- What `lb.service` takes.
---@class cnf.ServiceOptions
---@field name string Tells services from each other: two of one name on a hook raise EEXIST, and so do two of one address, port and protocol.
---@field vip string The virtual address and port: "192.168.100.5:80" or "[fd00::5]:80".
---@field proto? "tcp"|"udp" "tcp" by default.
---@field attach (cnf.Link|{[1]: cnf.Link, [2]: "ingress"|"egress"|"primary"|"peer"})[] The links by which clients come, of one namespace (EXDEV). A link alone has requests at its ingress and replies at its egress, which is right but where replies leave by another link.
---@field backends? (cnf.Backend|string)[] "10.0.0.2:80" is a backend of weight 1. None by default.
---@field idle? number|string UDP: a flow that nobody has used for so long is new, 60 s by default; whole seconds.
---@field connections? integer How many are remembered, 65536 by default, at most 16777216; about 300 bytes each. Beyond that the longest unused are forgotten, and come to where their hash says.

--- Makes a service. New connections are shared by weight: which backend gets one depends only on the connection's addresses and
--- ports and on the list, so that balancers of one list agree. Its programs run on tcx, or clsact before
--- Linux 6.6, at most 63 on a hook: behind those of chaos, mirrors, police and flow, before what a script attaches itself and the
--- policy router, whichever was made first.
---
--- While no backend takes new connections, their packets pass as they are: where the virtual address is its own, the kernel says
--- that nobody listens. Fragments follow their first. ICMP errors come to whom they concern, so
--- that path MTU discovery works; pings of the virtual address are the kernel's.
---
--- Raises EINVAL for an unknown word or a bad value, E2BIG for more than 4095 backends, EXDEV, EEXIST, ENODEV; EPERM without
--- CAP_NET_ADMIN and CAP_BPF. Nothing stays attached then.
---
--- ```lua
--- local web = lb.service {
---   name = "web", vip = "192.168.100.5:80", attach = { eth0 },
---   backends = { "10.0.0.2:8080", { address = "10.0.0.3", port = 8080, weight = 2 } },
--- }
--- web:drain("10.0.0.2:8080")
--- ```
---@param options cnf.ServiceOptions
---@return cnf.Service
function lb.service(options) end

--- A service. It is taken off its hooks at the end.
---@class cnf.Service
---@field name string
---@field vip string
---@field proto string
local Service = {}

--- Replaces all backends at once: every packet sees the old table or the new one. New connections move by the share of those that
--- came or went, and hardly any between others; no connection that exists moves, not even of a backend that is no longer named.
--- (When such a one is dead: `forget`.) Counters of a backend that stays go on.
---@param backends (cnf.Backend|string)[]
function Service:set_backends(backends) end

--- Gives a backend no new connections, as a weight of 0; those that it has go on. ENOENT for one that is not there.
---@param backend cnf.Backend|string
function Service:drain(backend) end

--- Forgets the connections of a backend: what comes of them next goes to others, as new ones. How many there were.
---@param backend cnf.Backend|string One that was there at some time.
---@return integer
function Service:forget(backend) end

--- The backends, as they can be given to `set_backends`.
---@return cnf.Backend[]
function Service:list() end

--- What a service has counted. Bytes are counted from the IP header on; a packet that is cut into segments later (GSO) counts as
--- these.
---@class cnf.ServiceCounts
---@field begun integer New connections.
---@field requests {packets: integer, bytes: integer} To backends.
---@field replies {packets: integer, bytes: integer} From them.

--- What one backend got.
---@class cnf.BackendStats: cnf.Backend
---@field state "serving"|"draining"
---@field begun integer
---@field requests {packets: integer, bytes: integer}
---@field replies {packets: integer, bytes: integer}

--- All backends together, with those that are gone.
---@class cnf.ServiceTotals: cnf.ServiceCounts
---@field unserved {packets: integer, bytes: integer} Packets of new connections that no backend took.

--- What each backend has got, in the order of the list, and `total`.
---@return {[integer]: cnf.BackendStats, total: cnf.ServiceTotals}
function Service:stats() end

--- How many connections are alive: TCP ones that not both sides have ended (FIN, or one RST), UDP flows that are not idle. All remembered
--- ones are looked at, which takes about a tenth of a second for a million.
---@param backend? cnf.Backend|string Of this one alone.
---@return integer
function Service:connections(backend) end

--- Takes the service off its hooks: its connections end there. It can still be read.
function Service:detach() end

return lb
