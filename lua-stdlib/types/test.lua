---@meta cnf.test

--- Cases and assertions for `cnfscript test`. The cases of a file run one after the other; files run in parallel, each
--- in a process of its own. What a case created is undone after it: its tasks, its namespaces and links, what it deferred.
---@class cnf.test
local test = {}

--- Registers a case. Two of one name in a file raise EEXIST.
---
--- ```lua
--- test.case("the server answers", function(t)
---   local ns = t:netns("box")
---   t:equal(probe.ping(ns, "127.0.0.1", { count = 1 }).received, 1)
--- end)
--- ```
---@param name string
---@param fn fun(t: cnf.Case)
function test.case(name, fn) end

--- What a case is given.
---@class cnf.Case
---@field name string
local Case = {}

--- Fails unless the two are equal: tables are compared by their contents, handles by the object they mean.
---@param got any
---@param expected any
---@param message? string
function Case:equal(got, expected, message) end

--- Fails unless `value` is true, or at least not nil and not false.
---@generic T
---@param value T
---@param message? string
---@return T value
function Case:ok(value, message) end

--- Fails unless `fn` raises.
---@param fn fun()
---@param pattern? string The error's code ("EEXIST"), or a Lua pattern or plain text in its text.
---@return any error The error that was raised.
function Case:raises(fn, pattern) end

--- Calls `fn` until it returns a true value; an error counts as not yet.
---@generic T
---@param fn fun(): T
---@param options? {within?: number|string, every?: number|string} 5 s and 20 ms by default.
---@return T value
function Case:eventually(fn, options) end

--- Fails as soon as `fn` returns a true value.
---@param fn fun(): any
---@param options? {during?: number|string, every?: number|string} 1 s and 20 ms by default.
function Case:never(fn, options) end

--- Calls `fn` when the case has ended, however it ended; the last one deferred is called first.
---@param fn fun()
function Case:defer(fn) end

--- A network namespace of a unique name that begins with `name`, deleted after the case.
---@param name string
---@return cnf.Netns
function Case:netns(name) end

--- Ends the case here: it counts as skipped, for this reason.
---@param why string
function Case:skip(why) end

--- Skips the case unless this system has every one of the features; an unknown name raises EINVAL.
---@param ... string "netkit", "tcx" and the others that `bpf.features()` lists.
function Case:requires(...) end

return test
