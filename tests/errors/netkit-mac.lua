--- A MAC on a header-less pair.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.netkit.pair({ name = "nk0", netns = ns, mac = "02:00:00:00:00:01", peer = { netns = ns } })
