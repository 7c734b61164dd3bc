--- A number used as an address.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "not_a_pointer" } })
