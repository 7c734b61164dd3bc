--- A helper of XDP in a tc program.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "helper_type" } })
