--- clang's own words.
require("cnf").bpf.compile({ source = "int broken = nowhere;\n" })
