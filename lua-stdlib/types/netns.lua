---@meta cnf.netns

--- Network namespaces: made, found, looked into. Those made here are visible to `ip netns` and entered by any tool; those
--- that other tools made are found by name. (ip-netns(8), network_namespaces(7))
---@class cnf.netns
local netns = {}

--- Makes a namespace of that name, owned by this instance: it is deleted at the end with all that is in it. Loopback is up.
--- IPv4 settings are the kernel's own defaults, not the host's (rp_filter is 0), and IPv6 addresses are usable at once, without
--- duplicate address detection. EEXIST when the name is taken, whoever took it; EINVAL for a bad name; EPERM without
--- CAP_SYS_ADMIN.
---
--- ```lua
--- local router = netns.new("router")
--- router:sysctl("net.ipv4.ip_forward", 1)
--- ```
---@param name string At most 255 bytes, without "/".
---@param options? {} None so far.
---@return cnf.Netns
function netns.new(name, options) end

--- The namespace of that name, whoever made it. It is not owned: what is changed in it is undone at the end, what was there
--- stays. ENOENT when there is none.
---@param name string
---@return cnf.Netns
function netns.get(name) end

--- The namespace that this program was started in. Its name is "".
---@return cnf.Netns
function netns.host() end

--- The names of all namespaces, sorted, as `ip netns list` finds them.
---@return string[]
function netns.list() end

--- Whether there is a namespace of that name.
---@param name string
---@return boolean
function netns.exists(name) end

--- A network namespace. Every method raises ENODEV once it is deleted, or another stands under its name.
---@class cnf.Netns
---@field name string Its name; "" for the host's.
local Netns = {}

--- Runs a program in the namespace and waits for its end. It sees this namespace's /sys and the files of /etc/netns/NAME as
--- with `ip netns exec`. A program that fails raises EXIT, with the last lines that it wrote; with check=false it does not.
--- A program that is not there raises ENOENT, one that outlives its timeout is killed with its children: ETIMEDOUT.
---
--- ```lua
--- print(client:exec({ "ip", "-br", "address" }).stdout)
--- if client:exec("ip route get 192.0.2.1", { check = false }).code ~= 0 then print "no route" end
--- ```
---@param command string[]|string Words, or a line for /bin/sh.
---@param options? {timeout?: number|string, stdin?: string, env?: table<string, any>, check?: boolean} No timeout, no input, the environment of this program plus `env`, check=true.
---@return {code: integer, stdout: string, stderr: string} result `code` is 128 and the signal for a program that a signal ended.
function Netns:exec(command, options) end

--- Starts a program in the namespace and goes on. It is killed, with its children, at the end. Its standard error is this
--- program's. A reload that starts the same words with the same environment in the same namespace goes on with the one that
--- runs; one that is not started again ends at the commit. ENOENT when there is no such program.
---
--- ```lua
--- local ping = client:spawn { "ping", "-c", "1", "10.0.0.2" }
--- for line in ping:lines() do print(line) end
--- ```
---@param command string[]|string Words, or a line for /bin/sh.
---@param options? {env?: table<string, any>}
---@return cnf.Process
function Netns:spawn(command, options) end

--- Reads a kernel setting of the namespace, or writes it: what it was before is put back at the end, unless someone else
--- changed it since. What the kernel changes along with it (`ip_forward` sets every device's own) is put back too. ENOENT for
--- an unknown key, EINVAL for a value that the kernel does not take. (proc_sys_net(5), Documentation/networking/ip-sysctl.rst)
---
--- ```lua
--- client:sysctl("net.ipv4.ip_forward", 1)
--- print(client:sysctl("net.ipv4.ip_forward"))
--- ```
---@param key string "net.ipv4.ip_forward"; with slashes where a part has dots: "net/ipv4/conf/eth0.7/rp_filter".
---@param value? string|integer|boolean true is 1, false is 0.
---@return string value As it is now.
function Netns:sysctl(key, value) end

--- A link that is there. It is not owned: what is changed on it is undone at the end. ENODEV when there is none.
---@param name string
---@return cnf.Link
function Netns:link(name) end

--- All links of the namespace, by index.
---@return cnf.Link[]
function Netns:links() end

--- Adds a route; it is removed at the end. `dst` is "default" or a network, a bare address is a host route (bits set
--- behind the prefix, as in "10.0.0.1/24", raise EINVAL); a default route
--- without `via` or `src` is IPv4's unless family="inet6". An IPv4 route may go via an IPv6 gateway. Several ways: `nexthops`, with
--- weights from 1 to 256, instead of `via` and `dev`. Table 0 raises EINVAL: it is none. EEXIST when table, dst, tos and metric are taken, ENETUNREACH or
--- EHOSTUNREACH with the kernel's reason when no link reaches the gateway. (ip-route(8))
---
--- ```lua
--- client:route { dst = "default", via = "10.0.0.2" }
--- client:route { dst = "10.2.0.0/16", dev = eth0, metric = 50, table = 100 }
--- ```
---@param options {dst: string, via?: string, dev?: cnf.Link|string, src?: string, table?: integer|string, metric?: integer, mtu?: integer, scope?: string|integer, proto?: string|integer, type?: string, nexthops?: {via?: string, dev?: cnf.Link|string, weight?: integer, onlink?: boolean}[], onlink?: boolean, tos?: integer, family?: "inet"|"inet6"} Table "main", proto "boot", type "unicast" by default; mtu in bytes.
---@return cnf.Route
function Netns:route(options) end

--- Adds a policy routing rule; it is removed at the end. Both families have rules of their own: `from` or `to` tell which, else
--- `family`, else it is IPv4's. EEXIST when there is an equal one of that priority; without `priority` the kernel gives each its own. (ip-rule(8))
---
--- ```lua
--- client:rule { from = "10.0.0.0/24", table = 100, priority = 500 }
--- ```
---@param options {from?: string, to?: string, iif?: cnf.Link|string, oif?: cnf.Link|string, fwmark?: integer|string, ipproto?: string|integer, sport?: integer|string, dport?: integer|string, tos?: integer, table?: integer|string, priority?: integer, type?: "unicast"|"nop"|"blackhole"|"unreachable"|"prohibit", goto?: integer, invert?: boolean, suppress_prefixlength?: integer, proto?: string|integer, family?: "inet"|"inet6"} fwmark "0x10/0xff" has a mask, a port range is "1000-2000"; table "main" by default; `goto` is a word of Lua: `["goto"] = 100`.
---@return cnf.Rule
function Netns:rule(options) end

--- Adds a neighbour entry, permanent unless `state` says otherwise; it is removed at the end. EEXIST when the link has one for
--- this address. (ip-neighbour(8))
---
--- ```lua
--- client:neigh { dst = "10.0.0.9", lladdr = "02:00:00:00:00:09", dev = eth0 }
--- ```
---@param options {dst: string, dev: cnf.Link|string, lladdr?: string, state?: "permanent"|"reachable"|"stale"|"noarp"|"none", proxy?: boolean}
---@return cnf.Neigh
function Netns:neigh(options) end

--- The routes that match all that is given, both families; of table "main" unless `table` says another, or "all".
---@param filter? {dst?: string, via?: string, dev?: cnf.Link|string, table?: integer|string, proto?: string|integer, type?: string, family?: "inet"|"inet6"}
---@return {dst: string, family: string, via?: string, dev?: string, src?: string, table: integer, metric?: integer, mtu?: integer, scope: string, proto: string, type: string, nexthops?: table[], onlink?: boolean, linkdown?: boolean}[]
function Netns:routes(filter) end

--- The rules that match all that is given, in the order they are asked, IPv4's first.
---@param filter? {from?: string, to?: string, table?: integer|string, priority?: integer, family?: "inet"|"inet6"}
---@return {priority: integer, family: string, from?: string, to?: string, iif?: string, oif?: string, fwmark?: integer, fwmask?: integer, ipproto?: integer, sport?: integer|string, dport?: integer|string, table?: integer, type: string, goto?: integer, invert?: boolean, suppress_prefixlength?: integer}[]
function Netns:rules(filter) end

--- The neighbours that match all that is given. Multicast and loopback entries, which need no resolution, are left out.
---@param filter? {dst?: string, dev?: cnf.Link|string}
---@return {dst: string, dev: string, lladdr?: string, state: string, router: boolean, proxy: boolean}[]
function Netns:neighs(filter) end

--- Deletes a namespace that this script made, and with it all that is in it. EPERM for any other.
function Netns:delete() end

--- A route that was added.
---@class cnf.Route
local Route = {}

--- Removes it. ESRCH when it is gone.
function Route:delete() end

--- As it is now, a record as `Netns:routes` gives them. ENODEV when it is gone.
---@return table
function Route:info() end

--- A policy routing rule that was added.
---@class cnf.Rule
local Rule = {}

--- Removes it. ENOENT when it is gone.
function Rule:delete() end

--- As it is now, a record as `Netns:rules` gives them. ENODEV when it is gone.
---@return table
function Rule:info() end

--- A neighbour entry that was added.
---@class cnf.Neigh
local Neigh = {}

--- Removes it. ENOENT when it is gone.
function Neigh:delete() end

--- As it is now, a record as `Netns:neighs` gives them. ENODEV when it is gone.
---@return table
function Neigh:info() end

--- A program that runs beside the script.
---@class cnf.Process
---@field pid integer It leads a process group of its own.
local Process = {}

--- Waits for its end. ETIMEDOUT when it still runs after `timeout`; it runs on.
---@param timeout? number|string
---@return {code: integer} result `code` is 128 and the signal when a signal ended it.
function Process:wait(timeout) end

--- Sends a signal to it and its children; in a reload, at the commit. Nothing happens when it has ended.
---@param signal? string|integer "TERM", the default, "KILL", "SIGSTOP", 9 ...
function Process:kill(signal) end

--- Iterates over the lines that it prints, as they come, until it ends: `for line in p:lines() do`. Each line is given once. It
--- never waits for its reader: of what nobody reads the last 1 MiB is kept.
---@return fun(): string?
function Process:lines() end

--- Writes to its standard input; nil closes it. EPIPE when it is closed; EAGAIN while a reload runs, of one that ran before.
---@param text string?
function Process:write(text) end

return netns
