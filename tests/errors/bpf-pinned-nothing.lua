--- A path where nothing is pinned.
require("cnf").bpf.pinned("/nowhere/map")
