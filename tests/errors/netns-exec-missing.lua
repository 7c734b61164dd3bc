--- A program that is not there.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:exec({ "no-such-program", "--really" })
