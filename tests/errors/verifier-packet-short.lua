--- Compares one header with the end, then reads the next.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "packet_short" } })
