--- A kind that there is not.
require("cnf").bpf.pinned("/sys/fs/bpf/map", "prog")
