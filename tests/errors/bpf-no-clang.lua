--- run: env PATH=/nowhere
require("cnf").bpf.compile({ source = "int nothing;\n" })
