--- Nor is nothing.
require("cnf").bpf.load("/dev/null")
