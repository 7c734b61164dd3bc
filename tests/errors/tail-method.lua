--- A method of an object that the library has made in Lua, as a tail call.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-lb-" .. cnf._test.pid())
local eth0 = cnf.link.veth({ name = "eth0", netns = ns, address = "10.0.0.1/24", peer = { name = "eth1", netns = ns } })
local s = cnf.lb.service({ name = "web", vip = "192.0.2.1:80", attach = { eth0 }, backends = { "10.0.0.2:80" } })

return s:drain("10.0.0.3:80")
