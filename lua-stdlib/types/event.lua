---@meta cnf.event

--- The kernel's own notifications, as they come. (rtnetlink(7))
---@class cnf.event
local event = {}

--- Calls `fn(event)` for each notification from this line on, in order, in a task of its own: while it waits, later ones queue.
--- An error in it is printed and the next one comes all the same. EINVAL for an unknown kind, ENODEV for a link that is not there.
---
--- Every event has `kind`, `action` and `netns` (its name, "" for the host's). `action` is "new", "change" (links only), "delete", or
--- "lost": the queue overran, so the script must look at the present state again. Besides:
---
---   link      name, index, up, carrier, running, operstate, mtu, mac, master (index)
---   address   address, dev, scope, secondary, tentative
---   route     dst, via, dev, table, metric, proto, type
---   neigh     dst, dev, lladdr, state
---
--- ```lua
--- event.on("link", { netns = client }, function(e) print(e.name, e.up) end)
--- ```
---@param kind "link"|"address"|"route"|"neigh"
---@param options? {netns?: cnf.Netns|string, link?: cnf.Link|string} The host's namespace, every link. A Link says its namespace itself.
---@param fn fun(event: table)
---@return cnf.Subscription
---@overload fun(kind: string, fn: fun(event: table)): cnf.Subscription
function event.on(kind, options, fn) end

--- A handler that is being called.
---@class cnf.Subscription
---@field what "link"|"address"|"route"|"neigh"
---@field task cnf.Task The task that calls the handler.
local Subscription = {}

--- Ends it: the handler is not called again, and is cancelled where it waits.
function Subscription:stop() end

return event
