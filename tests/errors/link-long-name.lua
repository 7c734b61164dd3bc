--- A name longer than IFNAMSIZ allows.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.link.veth({ name = "sixteen-letters!", netns = ns })
