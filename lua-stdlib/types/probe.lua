---@meta cnf.probe

--- The few clients and servers that prove a path. They open their sockets inside the namespace that they are given, IPv4 and
--- IPv6 alike, and need no other tools. Times are in seconds.
---@class cnf.probe
local probe = {}

--- Sends ICMP echo requests and counts the replies. Loss is a result, never an error; `error` names the last refusal on the way
--- ("ENETUNREACH", "EHOSTUNREACH", "EMSGSIZE") when there was one. `rtt` is empty when nothing came back. (RFC 792, RFC 4443)
---
--- ```lua
--- print(probe.ping(client, "10.0.0.2", { count = 3, interval = "10ms" }).received)
--- ```
---@param netns cnf.Netns|string Where it sends from.
---@param address string
---@param options? {count?: integer, interval?: number|string, timeout?: number|string, size?: integer, source?: string, dev?: cnf.Link|string, df?: boolean} 3 requests, one every 0.1 s, of 56 bytes, and 1 s for the last reply. `dev` is a link or vrf that it is bound to, df=true forbids fragments.
---@return {sent: integer, received: integer, loss: number, rtt: {min?: number, avg?: number, max?: number}, error?: string} result `loss` is a share from 0 to 1.
function probe.ping(netns, address, options) end

--- Connects, sends, ends its half, reads the answer to its end (1 MiB at most). Raises ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH ...
---
--- ```lua
--- probe.serve(server, { tcp = 8080, reply = "hello" })
--- print(probe.tcp(client, "10.0.0.2:8080").reply)
--- ```
---@param netns cnf.Netns|string
---@param address string "10.0.0.1:80" or "[fd00::1]:80".
---@param options? {timeout?: number|string, send?: string, source?: string, dev?: cnf.Link|string} 3 s for all of it, nothing sent.
---@return {reply: string, connect: number, total: number}
function probe.tcp(netns, address, options) end

--- Sends a datagram and waits for one. Raises ETIMEDOUT, and ECONNREFUSED when nobody listens there.
---@param netns cnf.Netns|string
---@param address string "10.0.0.1:53" or "[fd00::1]:53".
---@param options? {timeout?: number|string, send?: string, source?: string, dev?: cnf.Link|string} 3 s, "probe".
---@return {reply: string, total: number}
function probe.udp(netns, address, options) end

--- Serves a port, on all addresses of both families or on `address`, until stopped or the end. It answers with `reply`, or else
--- with what it was sent, from the address that was asked. It goes on while no Lua runs, and through
--- reloads that serve the same port on the same address; another `reply` is given from the commit on. EADDRINUSE when the port
--- is taken.
---
--- ```lua
--- local echo = probe.serve(server, { udp = 5353, reply = "pong" })
--- print(probe.udp(client, "10.0.0.2:5353", { send = "ping" }).reply, echo:stats().requests)
--- ```
---@param netns cnf.Netns|string
---@param options {tcp?: integer, udp?: integer, reply?: string, address?: string} One of tcp and udp; port 0 lets the kernel choose.
---@return cnf.Server
function probe.serve(netns, options) end

--- A server of `probe.serve`. Maps that hold sockets (sockmap, sockhash) take it as a value, socket storage as a key.
---@class cnf.Server
---@field port integer
local Server = {}

--- How many requests it answered, and the bytes of the answers.
---@return {requests: integer, bytes: integer}
function Server:stats() end

--- Stops it: the port is closed, and its connections with it.
function Server:stop() end

return probe
