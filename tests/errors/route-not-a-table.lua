--- Options that are none.
require("cnf").netns.host():route("10.0.0.0/8")
