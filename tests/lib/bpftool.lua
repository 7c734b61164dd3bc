--- What bpftool says.

local json = require("json")
local host = require("cnf").netns.host()

local bpftool = {}

--- Skips the case where it is not installed.
function bpftool.required(t)
  if not pcall(host.exec, host, { "bpftool", "version" }) then
    t:skip("bpftool is not installed")
  end
end

--- Its answer as data.
function bpftool.ask(...)
  return json.decode(host:exec({ "bpftool", "-j", ... }).stdout)
end

return bpftool
