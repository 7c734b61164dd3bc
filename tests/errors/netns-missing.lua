--- There is no such namespace, but one of nearly that name.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.netns.get(ns.name .. "x")
