--- requires: netkit
package.path = "./?.lua"
local counter, netkit = require("lib.counter"), require("cnf").netkit

netkit.attach(counter.link(), "primary", counter.load().programs.count)
