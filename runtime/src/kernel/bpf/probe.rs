pub fn raise_memlock() {}
pub fn possible_cpus() -> usize { 2 }
pub fn on_bpffs(_: &std::path::Path) -> bool { true }
