--- Keeps a packet pointer across a helper that may move the packet.
require("cnf").bpf.compile("lib/refused.bpf.c", { programs = { "packet_moved" } })
