--- Cgroups of a test's own, and commands in them.
local cnf = require("cnf")

local cgroups = {}

--- A cgroup of the case's own, in a mount that the commands of namespaces see too.
function cgroups.new(t)
  t:requires("cgroup")
  local mount = os.tmpname() .. ".cgroup"
  local path = ("%s/cnfscript-%d-%s"):format(mount, cnf._test.pid(), mount:match("lua_(%w+)"))
  os.execute("mkdir " .. mount)
  t:defer(function()
    os.execute(("rmdir %s; umount %s; rmdir %s"):format(path, mount, mount))
  end)
  if not os.execute("mount -t cgroup2 cgroup2 " .. mount) or not os.execute("mkdir " .. path) then
    t:skip("no cgroup file system can be mounted")
  end
  return path
end

--- Runs a shell line in a cgroup.
function cgroups.inside(ns, path, line)
  local whole = ("echo $$ > %s/cgroup.procs || exit 99; %s"):format(path, line)
  return ns:exec({ "bash", "-c", whole }, { timeout = 20, check = false })
end

return cgroups
