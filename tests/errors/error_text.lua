--- error() with a text.
local function setup(name)
  error("cannot set up " .. name)
end

setup("a")
