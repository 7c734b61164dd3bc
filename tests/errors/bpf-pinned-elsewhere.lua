--- A file that is no pin.
require("cnf").bpf.pinned("bpf-pinned-elsewhere.lua")
