--- C text where a path is wanted.
require("cnf").bpf.compile("int x;")
