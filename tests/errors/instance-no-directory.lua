--- run: env CNFSCRIPT_RUN_DIR=/proc/nowhere
--- args: up SCRIPT
--- Where instances are kept cannot be written: nothing is created.
local cnf = require("cnf")

cnf.netns.new("never-made")
