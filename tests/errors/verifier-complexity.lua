--- Ends, but far too late to follow.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "complexity" } })
