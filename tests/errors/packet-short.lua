require("cnf").packet.decode("no packet")
