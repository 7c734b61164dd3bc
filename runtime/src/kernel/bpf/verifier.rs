//! What the verifier's log says, in a sentence: the reason, the C source line it is about, the end of the log.

use std::sync::Mutex;

use nix::errno::Errno;

use crate::Error;
use crate::error::errno_name;

/// Lines of the log that an error shows.
const TAIL: usize = 20;

/// The log of the last program that was refused, whole: `(program, log)`.
static LAST: Mutex<Option<(String, String)>> = Mutex::new(None);

/// The whole log of the last refusal in this process, for whoever asks for more than the error shows.
pub fn last_log() -> Option<(String, String)> {
    LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
}

/// The parts of a log that a person looks for.
#[derive(Debug, PartialEq, Eq)]
struct Reading<'a> {
    reason: String,
    /// `x = *p;`, with `file.c:12` where the kernel says it (6.8 and later).
    source: Option<&'a str>,
    place: Option<&'a str>,
    tail: String,
}

/// Turns a refusal with its log into an error: code of the errno, reason and source line as message.
pub(super) fn refused(program: &str, errno: Errno, log: &str) -> Error {
    *LAST.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
        Some((program.to_owned(), log.to_owned()));
    let Some(reading) = read(log) else {
        return super::program::refusal("bpf.load", errno).subject(program);
    };
    let mut message = format!("the verifier refused it: {}", reading.reason);
    if let Some(source) = reading.source {
        message.push_str(&format!(" at `{source}`"));
    }
    if let Some(place) = reading.place {
        message.push_str(&format!(" ({place})"));
    }
    let error =
        Error::new("bpf.load", errno_name(errno), message).subject(program).detail(reading.tail);
    match hint(&reading.reason) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn read(log: &str) -> Option<Reading<'_>> {
    let lines: Vec<&str> = log.trim_end_matches('\0').lines().collect();
    let last = lines.iter().rposition(|line| is_reason(line))?;
    // "invalid access to packet" is followed by another line that says why.
    let before = lines[..last].iter().rev().take_while(|line| is_reason(line)).count();
    let at = last - before.min(1);
    let reason = lines[at..=last].iter().map(|l| l.trim()).collect::<Vec<_>>().join("; ");
    let annotation = lines[..at].iter().rev().find_map(|line| line.strip_prefix("; "));
    let (source, place) = match annotation.map(|a| a.rsplit_once(" @ ")) {
        Some(Some((source, place))) => (Some(source.trim()), Some(place.trim())),
        _ => (annotation.map(str::trim), None),
    };
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    Some(Reading { reason, source: source.filter(|s| !s.is_empty()), place, tail })
}

/// Not statistics, not source, not an instruction, not a register state.
fn is_reason(line: &str) -> bool {
    let line = line.trim();
    let statistics = [
        "processed ",
        "verification time",
        "stack depth",
        "total_states",
        "mark_precise",
        "peak_states",
    ];
    let instruction = line.split_once(':').is_some_and(|(number, _)| {
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
    });
    let noise = [
        "; ",
        "from ",
        "last_idx",
        "regs=",
        "parent ",
        "Live regs",
        "func#",
        "Func#",
        "Validating ",
    ];
    !line.is_empty()
        && !instruction
        && !statistics.iter().chain(&noise).any(|start| line.starts_with(start))
}

/// What to try for the reasons met most.
fn hint(reason: &str) -> Option<&'static str> {
    const HINTS: [(&str, &str); 8] = [
        ("invalid access to packet", "compare the pointer with data_end before reading"),
        ("map_value_or_null", "check the result of the map lookup for NULL first"),
        ("invalid access to map value", "bound the index before using it"),
        ("back-edge", "bound the loop with a constant, or use bpf_loop"),
        ("too many instructions", "split the program with tail calls, or make loops smaller"),
        ("BPF program is too large", "split the program with tail calls, or make loops smaller"),
        ("GPL", "add: char LICENSE[] SEC(\"license\") = \"GPL\";"),
        ("unknown func", "this kernel, or this type of program, does not have that helper"),
    ];
    HINTS.iter().find(|(mark, _)| reason.contains(mark)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
func#0 @0
0: R1=ctx() R10=fp0
; return *(volatile int *)(long)skb->len; @ bad.c:7
0: (61) r1 = *(u32 *)(r1 +0)          ; R1_w=scalar()
1: (61) r0 = *(u32 *)(r1 +0)
R1 invalid mem access 'scalar'
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
";

    #[test]
    fn the_reason_and_its_source_line() {
        let error = refused("bad", Errno::EACCES, LOG);
        assert_eq!(
            error.to_string(),
            "bpf.load(bad): the verifier refused it: R1 invalid mem access 'scalar' at \
             `return *(volatile int *)(long)skb->len;` (bad.c:7) (EACCES)"
        );
        assert!(error.get_detail().is_some_and(|d| d.contains("processed 2 insns")));
        assert!(last_log().is_some_and(|(name, log)| name == "bad" && log == LOG));
    }

    #[test]
    fn older_kernels_name_no_file() {
        let log = LOG.replace(" @ bad.c:7", "");
        assert_eq!(read(&log).and_then(|r| r.place), None);
        assert_eq!(
            read(&log).and_then(|r| r.source),
            Some("return *(volatile int *)(long)skb->len;")
        );
        assert_eq!(read("processed 0 insns\n"), None);
    }
}
