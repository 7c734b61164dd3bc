--- An object with nothing to run.
require("cnf").bpf.compile({ source = "int nothing;\n" })
