package.path = "./?.lua"
local counter = require("lib.counter")

print(counter.load().globals.limits)
