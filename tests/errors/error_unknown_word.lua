--- cnf.error itself checks its words.
local cnf = require("cnf")

cnf.error({ mesage = "misspelt" })
