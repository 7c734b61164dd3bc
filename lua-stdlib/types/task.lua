---@meta cnf.task

--- Structured waiting: what waits suspends its own task and nothing else. Durations are seconds as numbers, or "250ms",
--- "2s", "1m".
---@class cnf.task
local task = {}

--- Runs `fn(...)` as a task of its own, from the next time that the caller waits. An error in it that nobody joins is
--- printed and makes the exit status 1.
---
--- ```lua
--- local job = task.spawn(function(name)
---   task.sleep("10ms")
---   return "hello " .. name
--- end, "world")
--- print(job:join())
--- ```
---@param fn fun(...): ...
---@param ... any
---@return cnf.Task
function task.spawn(fn, ...) end

---Seconds since the program started, by a clock that never jumps: for measuring how long something took.
---@return number seconds
---@see clock_gettime(2)
function task.now() end

--- Waits.
---@param duration number|string
function task.sleep(duration) end

--- Calls `fn` again and again, waiting `interval` before each call, until the task is cancelled or `fn` raises.
---
--- ```lua
--- task.every("1s", function() print(eth0:stats().rx.packets) end)
--- ```
---@param interval number|string
---@param fn fun()
---@return cnf.Task
function task.every(interval, fn) end

--- Calls `fn` once, after `delay`; `join` gives its results.
---@param delay number|string
---@param fn fun(): ...
---@return cnf.Task
function task.after(delay, fn) end

--- Runs all of them at once and waits for all. The first error cancels the others and is raised. When the task that waits is
--- cancelled, so are the functions it runs here; those that were tasks before go on.
---@param jobs (cnf.Task|fun(): any)[]
---@return any[] results The first result of each, in the order of `jobs`.
function task.all(jobs) end

--- Runs all of them at once; the results, or the error, of whichever ends first. The others are cancelled.
---@param jobs (cnf.Task|fun(): ...)[]
---@return ...
function task.race(jobs) end

--- The results of `fn`, which is cancelled after `limit`, with the tasks that it waits for in `all`, `race` and `timeout`.
--- Raises ETIMEDOUT then. A loop that does not wait is interrupted too, and no pcall keeps it from that; a single long call
--- of a C function (`string.find`) is not.
---
--- ```lua
--- local ok, error = pcall(task.timeout, "20ms", function() task.sleep("1m") end)
--- print(error.code) -- ETIMEDOUT
--- ```
---@param limit number|string
---@param fn fun(): ...
---@return ...
function task.timeout(limit, fn) end

--- A queue between tasks.
---
--- ```lua
--- local channel = task.channel(8)
--- task.spawn(function() channel:send("ready") end)
--- print(channel:recv())
--- ```
---@param capacity? integer How many values wait in it before `send` waits; 0, the default: until one is received.
---@return cnf.Channel
function task.channel(capacity) end

--- A running function.
---@class cnf.Task
---@field id integer
---@field status "running"|"done"|"failed"|"cancelled"
local Task = {}

--- Waits for the end of the task; its results, or its error raised here. ECANCELED if it was cancelled.
---@return ...
function Task:join() end

--- Ends the task where it waits; its to-be-closed variables are closed. Nothing happens to one that has ended.
function Task:cancel() end

--- A queue between tasks.
---@class cnf.Channel
local Channel = {}

--- Puts a value in; waits while the channel is full. EPIPE once it is closed.
---@param value any
function Channel:send(value) end

--- The next value, waiting for one; nil once the channel is closed and empty.
---@return any
function Channel:recv() end

--- Ends the channel: waiting senders fail, receivers get what is left and then nil.
function Channel:close() end

return task
