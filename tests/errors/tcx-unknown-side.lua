--- requires: tcx
package.path = "./?.lua"
local counter = require("lib.counter")

require("cnf").tcx.attach(counter.link(), "egres", counter.load().programs.count)
