--- A text is no eBPF object.
require("cnf").bpf.load("lib/notes.txt")
