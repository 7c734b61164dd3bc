--- A folder.
require("cnf").bpf.load("lib")
