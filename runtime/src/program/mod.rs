//! The host halves of the embedded eBPF programs: they turn what a script says into map contents.
