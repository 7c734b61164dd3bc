--- A bridge in another namespace.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
local br = cnf.link.bridge({ name = "br0", netns = ns })
local other = cnf.netns.new(ns.name .. "-b")
cnf.link.veth({ name = "v0", netns = other, master = br, peer = { netns = other } })
