//! bpf(2): objects, programs, maps, links, hooks and probes.
