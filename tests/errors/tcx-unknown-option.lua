--- requires: tcx
package.path = "./?.lua"
local counter, tcx = require("lib.counter"), require("cnf").tcx

tcx.attach(counter.link(), "egress", counter.load().programs.count, { frist = true })
