--- Uses what a lookup gave without asking whether it found anything.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "null_check" } })
