--- A field that this type of program may not write.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "context_field" } })
