--- A signal that there is none of.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:spawn("sleep 100"):kill("TREM")
