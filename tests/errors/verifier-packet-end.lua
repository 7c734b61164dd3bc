--- Reads the frame without looking where it ends.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "packet_end" } })
