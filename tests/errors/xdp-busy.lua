--- requires: xdp
package.path = "./?.lua"
local counter, xdp = require("lib.counter"), require("cnf").xdp
local link, programs = counter.link(), counter.load().programs
xdp.attach(link, programs.frames)

xdp.attach(link, programs.again)
