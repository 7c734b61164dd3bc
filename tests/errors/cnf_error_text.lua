--- cnf.error takes a table.
require("cnf").error("no uplink is left")
