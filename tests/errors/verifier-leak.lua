--- A record that is neither submitted nor discarded.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "leak" } })
