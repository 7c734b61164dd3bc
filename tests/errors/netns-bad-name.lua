--- A name that cannot be a file's.
local cnf = require("cnf")
cnf.netns.new("a/b")
