--- Two namespaces of a case and a veth pair between them: `a` with v0, 10.0.0.1/24 and fd00::1/64, and `b` with w0, the
--- second address of each. Returns a, b, v0, w0.

local link = require("cnf").link

return function(t)
  local a, b = t:netns("a"), t:netns("b")
  local v, w = link.veth({
    name = "v0",
    netns = a,
    address = { "10.0.0.1/24", "fd00::1/64" },
    peer = { name = "w0", netns = b, address = { "10.0.0.2/24", "fd00::2/64" } },
  })
  return a, b, v, w
end
