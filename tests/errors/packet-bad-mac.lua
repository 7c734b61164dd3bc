require("cnf").packet.build({ eth = { dst = "02:00" } })
