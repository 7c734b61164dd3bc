--- An index into the context.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "context_pointer" } })
