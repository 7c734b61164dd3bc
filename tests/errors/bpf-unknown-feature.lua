require("cnf").bpf.has("netkitt")
