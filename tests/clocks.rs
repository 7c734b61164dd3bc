//! The wall clock can jump: it is shown to people, and nothing waits for it or is measured by it.

use std::path::{Path, PathBuf};

/// Where it is read, and what for.
const SHOWN: [(&str, &str); 7] = [
    ("runtime/src/own/instance/record.rs", "since when an instance runs, for `status`"),
    ("runtime/src/cli/reach.rs", "how long ago an instance has ended"),
    ("runtime/src/report.rs", "the time of a log line"),
    ("runtime/src/life/log/times.rs", "when a line of the log was written"),
    ("runtime/src/cli/logs.rs", "that, as `logs -t` shows it"),
    ("runtime/src/kernel/bpf/object/damage.rs", "seeds that nobody has tried"),
    ("runtime/src/api/library_options.rs", "when a flow was first and last seen"),
];
const WALL: [&str; 5] =
    ["SystemTime", "CLOCK_REALTIME", "gettimeofday", "os.time(", "bpf_ktime_get_tai_ns"];

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("it is there").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn nothing_waits_for_the_wall_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["runtime/src", "lua-stdlib", "bpf"] {
        sources(&root.join(directory), &mut files);
    }
    let mut reading: Vec<String> = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if WALL.iter().any(|word| text.contains(word)) {
            let name = file.strip_prefix(root).expect("below it").display().to_string();
            reading.push(name);
        }
    }
    reading.sort();
    let mut known: Vec<&str> = SHOWN.iter().map(|(file, _)| *file).collect();
    known.sort();
    assert_eq!(
        reading, known,
        "a deadline is CLOCK_MONOTONIC's; what is shown to people is listed here"
    );
}
