--- requires: tcx
package.path = "./?.lua"
local counter = require("lib.counter")

require("cnf").tcx.attach(counter.link(), "egress", counter.load().programs.frames)
