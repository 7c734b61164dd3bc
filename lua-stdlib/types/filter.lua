---@meta cnf.filter

--- Filters at XDP: frames are dropped by their source before the kernel has made packets of them.
---
--- A link has one XDP hook; the library's programs share it, in this order: filters, police, forward. They run in one mode: in the
--- driver where it can, else in the network stack.
---@class cnf.filter
local filter = {}

--- How much sources that no list names may send. What is more is dropped.
---@class cnf.FilterRate
---@field pps integer Frames a second.
---@field per? "source" Each source address by itself; all together by default.
---@field burst? integer Frames at once, after a silence: a tenth of a second's by default, at least 5.
---@field sources? integer Source addresses that are kept at a time, 65536 by default; the one not seen for longest is forgotten, and starts anew.

--- What `filter.xdp` takes. Networks are prefixes or addresses, IPv4 and IPv6, one or an array.
---@class cnf.FilterOptions
---@field link cnf.Link
---@field deny? string|string[] Sources that are dropped.
---@field allow? string|string[] Sources that pass, whatever the rate.
---@field default? "allow"|"deny" What is done with sources that no network holds; "allow" by default.
---@field rate? cnf.FilterRate
---@field size? integer Room for so many networks of each family; 65536, or twice as many as are given, by default.
---@field mode? "native"|"generic" As `xdp.attach`.

--- Puts a filter on a link. The longest network that holds a frame's source decides, whichever list it is from; of the same
--- network in both, `allow`. What is not IP passes, and neighbour discovery does. At most four on a link, each with what the one
--- before it let through.
---
--- Every prefix length in use costs a lookup, so a million networks of few lengths are as fast as a hundred.
---
--- Raises EINVAL for an unknown word or a bad value, with the nearest; EBUSY when another XDP program holds the hook, for a fifth
--- filter, or for another mode than the one that the library's programs run in there; E2BIG beyond `size`; ENODEV; EPERM without
--- CAP_NET_ADMIN and CAP_BPF.
---
--- ```lua
--- local f = filter.xdp { link = eth0, deny = { "192.0.2.0/24", "2001:db8::/32" }, rate = { pps = 1000, per = "source" } }
--- f:deny("198.51.100.7")
--- print(f:stats().denied.packets)
--- ```
---@param options cnf.FilterOptions
---@return cnf.Filter
function filter.xdp(options) end

--- A filter on a link. It is taken off at the end.
---@class cnf.Filter
---@field link cnf.Link
local Filter = {}

--- Denies more sources, also those that were allowed by the same network. Errors as `filter.xdp`.
---@param networks string|string[]
function Filter:deny(networks) end

--- Allows more sources, also those that were denied by the same network.
---@param networks string|string[]
function Filter:allow(networks) end

--- Takes networks out of the lists; how many were there.
---@param networks string|string[]
---@return integer count
function Filter:remove(networks) end

--- What became of frames: `passed` the default or the rate, `allowed` and `denied` by a network or the default, `limited`, and
--- `other`: not IP, or neighbour discovery. Bytes are counted from the IP header on.
---@return {passed: cnf.Counter, allowed: cnf.Counter, denied: cnf.Counter, limited: cnf.Counter, other: cnf.Counter}
function Filter:stats() end

--- Where it stands. ENODEV when the device is gone.
---@return {link: string, mode: "native"|"generic", stage: integer}
function Filter:info() end

--- Takes it off. Nothing happens when it is off already; its counters can still be read.
function Filter:detach() end

--- Packets and their bytes.
---@class cnf.Counter
---@field packets integer
---@field bytes integer

return filter
