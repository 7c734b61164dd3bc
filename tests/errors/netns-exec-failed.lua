--- A program that fails: the end of what it said.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:exec("echo first; echo cannot do that >&2; exit 7")
