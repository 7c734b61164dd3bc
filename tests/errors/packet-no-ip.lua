require("cnf").packet.build({ udp = { dport = 53 } })
