--- A namespace by a name that there is not.
require("cnf").probe.ping("golden-nowhere", "10.0.0.2")
