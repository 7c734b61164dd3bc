--- A helper given something else than it takes.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "helper_argument" } })
