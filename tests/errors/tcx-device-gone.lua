--- requires: tcx
package.path = "./?.lua"
local counter, tcx = require("lib.counter"), require("cnf").tcx
local link, programs = counter.link(), counter.load().programs
link:delete()

tcx.attach(link, "egress", programs.count)
