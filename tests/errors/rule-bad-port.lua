--- A port range backwards.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:rule({ ipproto = "tcp", dport = "2000-1000", table = 100 })
