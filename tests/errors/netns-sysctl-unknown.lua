--- A setting that there is none of, but one of nearly that name.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:sysctl("net.ipv4.ip_forwad", 1)
