--- Two functions whose stacks do not fit together.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "stack_size" } })
