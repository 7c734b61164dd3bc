--- A header length that the packet says, added without a bound.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "packet_offset" } })
