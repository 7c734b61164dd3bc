--- A shell line in a table is one program's name.
require("cnf").netns.host():exec({ "sleep 5" })
