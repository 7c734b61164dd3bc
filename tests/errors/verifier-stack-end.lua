--- More bytes than the buffer has.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "stack_end" } })
