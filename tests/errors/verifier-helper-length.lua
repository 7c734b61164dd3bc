--- A length that a helper cannot take as it is.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "helper_length" } })
