package.path = "./?.lua"
local counter = require("lib.counter")

counter.load().globals.limit = 2
