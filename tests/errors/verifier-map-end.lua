--- One element too far.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "map_end" } })
