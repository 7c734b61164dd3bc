--- A helper that is only for programs under the GPL.
require("cnf").bpf.compile("lib/not_gpl.bpf.c")
