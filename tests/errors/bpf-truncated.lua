--- An ELF file that ends in its header.
require("cnf").bpf.load({ bytes = "\127ELF\2\1\1" })
