--- An option that there is none of, in the peer's table.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.link.veth({
  name = "v0",
  netns = ns,
  peer = { name = "v1", adress = "10.0.0.1/24" },
})
