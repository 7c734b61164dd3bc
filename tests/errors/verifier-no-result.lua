--- Not every way through it sets what it returns.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "no_result" } })
