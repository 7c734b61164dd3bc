--- A file that is not there.
require("cnf").bpf.load("nowhere.o")
