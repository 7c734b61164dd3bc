//! What the verifier's log says, for a person: the reason in a sentence, the C line with its code, the registers that
//! matter, one hint. The whole log goes to a file when one was asked for.
//!
//! `log` finds the reason, the instruction and the register states; `source` knows which C line an instruction is from
//! (BTF line info, so that it works on kernels whose log names no file); `state` puts registers into words; `cause` knows
//! the usual mistakes.

mod cause;
mod log;
mod source;
mod state;

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use nix::errno::Errno;

pub(super) use source::Lines;

use crate::error::errno_name;
use crate::{Error, Result};

use log::Log;

/// Where whole logs go.
static KEPT: Mutex<Option<File>> = Mutex::new(None);

/// From now on the whole log of every refusal in this process is added to the file at `path`, emptied first if `fresh`.
///
/// # Errors
/// The errno of opening it.
pub fn keep_logs(path: &Path, fresh: bool) -> Result<()> {
    let file = File::options()
        .create(true)
        .append(!fresh)
        .write(true)
        .truncate(fresh)
        .open(path)
        .map_err(|e| Error::io("--verifier-log", &e).subject(path.display().to_string()))?;
    *KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(file);
    Ok(())
}

/// Whether somebody wants whole logs, however long.
pub(super) fn keeps_logs() -> bool {
    KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).is_some()
}

fn keep(program: &str, errno: Errno, log: &str) {
    let mut kept = KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(file) = kept.as_mut() else { return };
    let text = format!("program {program}: {}\n{}\n\n", errno_name(errno), log.trim_end());
    if let Err(e) = file.write_all(text.as_bytes()) {
        tracing::warn!("the verifier's log cannot be written: {e}");
    }
}

/// Turns a refusal with its log into an error: the errno as code, the reason in our words as message, and as detail the
/// C line, the registers and the verifier's own words.
pub(super) fn refused(program: &str, errno: Errno, text: &str, lines: &Lines) -> Error {
    keep(program, errno, text);
    let log = Log::parse(text);
    let Some(first) = log.reason.first() else {
        return super::program::refusal("bpf.load", errno).subject(program);
    };
    let cause = cause::find(&log);
    let place = log.instruction.and_then(|(at, _)| lines.at(at));
    let mut message = match &cause {
        Some(cause) => format!("the verifier refused it: {}", cause.sentence),
        None => format!("the verifier refused it: {first}"),
    };
    if let Some(place) = &place {
        message.push_str(&format!(", at {}", place.short()));
    }
    let mut detail: Vec<String> = place.iter().flat_map(|place| place.snippet()).collect();
    detail.extend(
        log.registers().into_iter().filter_map(|(register, state)| {
            Some(format!("r{register}: {}", state::in_words(state)?))
        }),
    );
    if let Some((at, code)) = log.instruction {
        detail.push(format!("instruction {at}: {code}"));
    }
    if cause.is_some() {
        detail.push(format!("the verifier: {first}"));
    }
    let error = Error::new("bpf.load", errno_name(errno), message).subject(program);
    let error = if detail.is_empty() { error } else { error.detail(detail.join("\n")) };
    error.hint(match cause {
        Some(cause) => cause.hint,
        None => "cnfscript --verifier-log FILE writes all that the verifier says".into(),
    })
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
    fn the_reason_the_registers_and_a_hint() {
        let error = refused("bad", Errno::EACCES, LOG, &Lines::default());
        assert_eq!(
            error.to_string(),
            "bpf.load(bad): the verifier refused it: it uses a number as an address (EACCES)"
        );
        assert_eq!(
            error.get_detail(),
            Some(
                "r1: a number, any\n\
                 instruction 1: r0 = *(u32 *)(r1 +0)\n\
                 the verifier: R1 invalid mem access 'scalar'"
            )
        );
        assert!(error.get_hint().is_some());
    }

    #[test]
    fn what_is_not_known_is_said_in_the_verifiers_words() {
        let log = LOG.replace("R1 invalid mem access 'scalar'", "gremlins in the pipeline");
        let error = refused("bad", Errno::EINVAL, &log, &Lines::default());
        assert!(error.message().ends_with("refused it: gremlins in the pipeline"), "{error}");
        assert!(error.get_hint().is_some_and(|h| h.contains("--verifier-log")));
    }

    #[test]
    fn a_log_that_says_nothing_leaves_the_errno() {
        let error = refused("bad", Errno::EPERM, "processed 0 insns\n", &Lines::default());
        assert_eq!(error.code(), "EPERM");
        assert!(error.get_detail().is_none());
    }
}
