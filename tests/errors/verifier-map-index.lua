--- An index that comes from outside.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "map_index" } })
