--- A constant that the loader has set for good.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "read_only" } })
