--- A method that a handle does not have.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:rout({ dst = "default" })
