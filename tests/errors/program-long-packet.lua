--- A packet that no page holds.
package.path = "./?.lua"
local count = require("lib.counter").load().programs.count
count:test_run({ packet = ("x"):rep(65536) })
