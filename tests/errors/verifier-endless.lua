--- Never ends.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "endless" } })
