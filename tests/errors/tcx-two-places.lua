--- requires: tcx
package.path = "./?.lua"
local counter, tcx = require("lib.counter"), require("cnf").tcx
local link, programs = counter.link(), counter.load().programs
local first = tcx.attach(link, "egress", programs.count)

tcx.attach(link, "egress", programs.other, { first = true, after = first })
