--- A program that takes too long.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:exec("sleep 100", { timeout = "50ms" })
