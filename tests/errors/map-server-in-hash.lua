--- A server where numbers go.
package.path = "./?.lua"
local rules = require("lib.counter").load().maps.rules
local cnf = require("cnf")
local server = cnf.probe.serve(cnf.netns.new("golden-" .. cnf._test.pid()), { udp = 7 })
rules:set(1, server)
