--- An option that does not exist: the nearest.
require("cnf").bpf.load("lib/program.bpf.c", { global = {} })
