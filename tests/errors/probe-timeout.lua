--- Nobody answers.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
local v = cnf.link.veth({ name = "v0", netns = ns, address = "10.0.0.1/24", peer = { name = "v1", netns = ns } })
ns:neigh({ dst = "10.0.0.2", lladdr = "02:00:00:00:00:09", dev = v })
cnf.probe.tcp(ns, "10.0.0.2:80", { timeout = "100ms" })
