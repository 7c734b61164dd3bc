--- requires: xdp
package.path = "./?.lua"
local counter, xdp = require("lib.counter"), require("cnf").xdp

xdp.attach(counter.link(), counter.load().programs.frames, { mode = "driver" })
