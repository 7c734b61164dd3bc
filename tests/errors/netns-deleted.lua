--- A namespace that was deleted under us.
local cnf = require("cnf")
local pid = io.open("/proc/self/stat"):read("n")
local ns = cnf.netns.new("golden-" .. pid)
cnf.netns.host():exec({ "ip", "netns", "delete", ns.name })
cnf.task.sleep(0.01)
ns:links()
