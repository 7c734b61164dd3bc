--- The object where one of its programs is meant.
package.path = "./?.lua"
local counter = require("lib.counter")

require("cnf").bpf.attach(counter.link(), "egress", counter.load())
