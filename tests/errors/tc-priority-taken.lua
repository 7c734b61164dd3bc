--- requires: clsact
package.path = "./?.lua"
local counter, tc = require("lib.counter"), require("cnf").tc
local link, programs = counter.link(), counter.load().programs
tc.attach(link, "ingress", programs.count, { priority = 10 })

tc.attach(link, "ingress", programs.other, { priority = 10 })
