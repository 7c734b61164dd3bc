--- A native that waits, which is wrapped in Lua.
local cnf = require("cnf")
local host = cnf.netns.host()
return host:exec({ "ip", "link", "show", "nonesuch0" })
