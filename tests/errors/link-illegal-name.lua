--- A name with a character that the kernel refuses.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.link.bridge({ name = "br 0", netns = ns })
