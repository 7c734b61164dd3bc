--- Hooks take handles: a name alone does not say the namespace.
local cnf = require("cnf")
cnf.tcx.attach("eth0", "ingress", cnf.bpf.builtin("router").programs.ingress)
