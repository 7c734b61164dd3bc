--- An ELF file of this machine's own code.
require("cnf").bpf.load("/bin/true")
