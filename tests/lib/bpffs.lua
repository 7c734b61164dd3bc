--- A bpf file system of a test's own, gone after the case: where it is.

local netns = require("cnf").netns

return function(t)
  local mount = os.tmpname()
  local host = netns.host()
  host:exec({ "sh", "-c", 'rm "$0" && mkdir "$0"', mount })
  t:defer(function()
    os.execute("umount " .. mount)
    host:exec({ "rmdir", mount })
  end)
  -- Not by exec: its commands have mounts of their own.
  if not os.execute("mount -t bpf bpffs " .. mount) then
    t:skip("no bpf file system can be mounted")
  end
  return mount
end
