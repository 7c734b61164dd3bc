--- C that nobody has compiled.
require("cnf").bpf.load("lib/program.bpf.c")
