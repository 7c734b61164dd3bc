--- A value that the kernel does not take.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
ns:sysctl("net.ipv4.ip_forward", "maybe")
