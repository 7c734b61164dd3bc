--- A script in the background with files of its own, gone after the case.

local netns = require("cnf").netns

--- `text` as instance "one", with these words for `up` if any.
return function(t, text, ...)
  local home = os.tmpname()
  os.remove(home)
  local host = netns.host()
  host:exec({ "mkdir", "-m", "700", home })
  local one = { path = home .. "/one.lua" }
  function one.run(...)
    return host:exec({ "/proc/self/exe", ... }, { env = { CNFSCRIPT_RUN_DIR = home .. "/run" }, check = false })
  end
  function one.write(new)
    local file <close> = assert(io.open(one.path, "w"))
    file:write('local cnf = require "cnf"\n', new)
  end
  function one.reload(new)
    one.write(new)
    local said = one.run("reload", "one")
    return said.code, said.stdout .. said.stderr
  end
  t:defer(function()
    one.run("down", "one")
    host:exec({ "rm", "-r", home })
  end)
  one.write(text)
  local words = { "up", "--load-timeout", "120", ... }
  words[#words + 1] = one.path
  local said = one.run(table.unpack(words))
  t:equal(said.code, 0, said.stderr)
  return one
end
