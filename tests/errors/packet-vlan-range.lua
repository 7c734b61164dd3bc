require("cnf").packet.build({ vlan = 5000, ip = { src = "10.0.0.1", dst = "10.0.0.2" } })
