--- An address without a port.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.probe.udp(ns, "fd00::2")
