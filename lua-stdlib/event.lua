--- `event`: handlers for the kernel's own notifications.

local native, cnf = ...
local task = cnf.task

local event = {}

local Subscription = cnf._library.class("Subscription", "subscription", { "what", "task" })

function Subscription:__tostring()
  return ("Subscription(%s)"):format(self.what)
end

--- Ends the subscription; the handler is not called again.
function Subscription:stop()
  self.task:cancel()
end

--- Calls `fn(event)` for each notification, in order. An error in it is printed, and the next one comes all the same.
function event.on(what, options, fn)
  if fn == nil and type(options) == "function" then
    options, fn = nil, options
  end
  if type(fn) ~= "function" then
    cnf.error({ op = "event.on", subject = tostring(what), code = "EINVAL", message = "takes a handler function" })
  end
  -- Opened here, not in the task: what happens from this line on is seen.
  local stream = native.stream(what, options)
  return setmetatable({
    what = what,
    task = task.spawn(function()
      while true do
        local ok, problem = xpcall(fn, native.located, stream:next())
        if not ok then
          native.failed(problem)
        end
      end
    end),
  }, Subscription)
end

return event
