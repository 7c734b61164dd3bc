---@meta cnf

--- The instance itself: its arguments, its log, its end. Every module is a field, loaded when first used.
---@class cnf
---@field version string The version of this program, "0.1.0".
---@field instance string The name of this instance: the script's file stem, or what --name says.
---@field generation integer Which load of the script this is, counted from 1.
---@field state table The one table that a reload keeps: plain data (strings, numbers, booleans, tables of them), copied
--- when it is put there, so that nested writes work. At most 16 MiB in all. A load that fails leaves it as it was. EINVAL
--- for functions, handles, circles and other keys; ENOSPC when it is full.
---@field args string[] What followed the script on the command line.
---@field log cnf.log Log lines on standard error.
---@field bpf cnf.bpf
---@field chaos cnf.chaos
---@field event cnf.event
---@field filter cnf.filter
---@field flow cnf.flow
---@field forward cnf.forward
---@field lb cnf.lb
---@field link cnf.link
---@field mirror cnf.mirror
---@field netkit cnf.netkit
---@field netns cnf.netns
---@field packet cnf.packet
---@field police cnf.police
---@field policy cnf.policy
---@field probe cnf.probe
---@field task cnf.task
---@field tc cnf.tc
---@field tcx cnf.tcx
---@field test cnf.test
---@field xdp cnf.xdp
local cnf = {}

--- The script is set up: what it has made so far is the network. What tests the new paths goes after it, or in a task.
--- In a reload this is the moment of the commit: what changes live things, which has waited until now, is done, all of it or
--- nothing, and the load before this one ends. The end of the main chunk does the same.
--- Waits until every task that was started has had its first turn.
function cnf.wait() end

--- Tears down and leaves; no pcall catches it. `os.exit` is the same.
---@param code? integer|boolean The exit status, 0 to 255; 0 by default, true is 0, false is 1.
function cnf.exit(code) end

--- Raises an error like the library's own, with the line of the caller.
---
--- ```lua
--- cnf.error { op = "setup", subject = "edge", code = "EINVAL", message = "no uplink", hint = "name one with --uplink" }
--- ```
---@param error {message: string, code?: string, op?: string, subject?: string, hint?: string, detail?: string}
function cnf.error(error) end

--- Calls `fn(reason)` when this load of the script ends: "reload" when another has taken over, "exit" when the instance
--- ends, "error" when it could not be set up or failed. The last one registered is called first. All of them together may take
--- two seconds. An error in one is printed and the others are called.
---
--- ```lua
--- cnf.on_stop(function(reason) print("ends: " .. reason) end)
--- ```
---@param fn fun(reason: "reload"|"exit"|"error")
function cnf.on_stop(fn) end

--- Whether this kernel has a feature, found out by trying it.
---@param name string "netkit", "tcx" and the others that `bpf.features()` lists; an unknown one raises EINVAL.
---@return boolean available
---@return string? reason Why not, as a person reads it.
function cnf.probe_feature(name) end

--- Log lines: for people, or one JSON object each with --log-format json.
---@class cnf.log
local log = {}

--- Always shown.
---@param message any
---@param fields? table<string, any> Shown as key=value, sorted by key.
function log.error(message, fields) end

--- Not shown with --quiet.
---@param message any
---@param fields? table<string, any>
function log.warn(message, fields) end

--- Not shown with --quiet.
---@param message any
---@param fields? table<string, any>
function log.info(message, fields) end

--- Shown with --verbose.
---@param message any
---@param fields? table<string, any>
function log.debug(message, fields) end

return cnf
