//! The parts of a verifier log: the reason, the instruction it is about, and what each register held there.
//!
//! Written by `kernel/bpf/verifier.c` and `kernel/bpf/log.c` for people, and worded differently by each release: what is
//! not recognised is left out, never guessed.

use std::collections::BTreeMap;

/// A log at level 1: the last path that was followed, with register states where they changed.
#[derive(Debug, Default)]
pub(super) struct Log<'a> {
    /// The lines that say why, usually one or two; empty when the log does not say.
    pub reason: Vec<&'a str>,
    /// The number and the text of the instruction that was looked at last.
    pub instruction: Option<(usize, &'a str)>,
    /// All instructions of the path, in order.
    pub path: Vec<(usize, &'a str)>,
    /// Of the current frame, as the log spells them.
    states: BTreeMap<u8, &'a str>,
}

impl<'a> Log<'a> {
    pub fn parse(text: &'a str) -> Self {
        let mut log = Log::default();
        for line in text.trim_end_matches('\0').lines() {
            let trimmed = line.trim();
            if let Some((number, rest)) = numbered(trimmed) {
                log.step(number, rest);
                log.reason.clear();
            } else if let Some((_, states)) = split_from(trimmed) {
                // "from 3 to 7: R0=... R1=...": another way to the same place.
                log.states.clear();
                log.take_states(states);
                log.reason.clear();
            } else if is_reason(trimmed) {
                log.reason.push(trimmed);
            }
        }
        log
    }

    /// `12: (61) r1 = *(u32 *)(r1 +76)  ; R1_w=pkt(r=0)`, or only states.
    fn step(&mut self, number: usize, rest: &'a str) {
        let (code, states) = match rest.strip_prefix('(') {
            Some(_) => {
                let (code, states) = rest.split_once(';').unwrap_or((rest, ""));
                // Without room for them, states follow a jump directly, with the number of the next instruction.
                let code = code
                    .split_once(": R")
                    .map_or(code, |(code, _)| code.rsplit_once(' ').map_or(code, |(code, _)| code));
                (Some(code), states)
            }
            None => (None, rest),
        };
        if let Some(code) = code {
            // "(61) " is the opcode.
            let text = code.split_once(')').map_or(code, |(_, text)| text).trim();
            self.instruction = Some((number, text));
            self.path.push((number, text));
        }
        self.take_states(states);
    }

    fn take_states(&mut self, text: &'a str) {
        for (register, state) in states(text) {
            self.states.insert(register, state);
        }
    }

    /// The registers that matter, with their states: those the reason names, else those of the instruction (of a helper
    /// call none: it is the reason that says which argument).
    pub fn registers(&self) -> Vec<(u8, &'a str)> {
        let mut named: Vec<u8> = self.reason.iter().flat_map(|line| mentioned(line, 'R')).collect();
        if named.is_empty()
            && let Some((_, code)) = self.instruction
            && !code.starts_with("call ")
        {
            // A register that is only written says nothing.
            let read = match code.split_once(" = ") {
                Some((left, right)) if !left.contains('(') => right,
                _ => code,
            };
            named = mentioned(read, 'r').chain(mentioned(read, 'w')).collect();
        }
        named.sort_unstable();
        named.dedup();
        named.into_iter().filter_map(|n| Some((n, self.state(n)?))).collect()
    }

    /// What a register held. The reason itself knows best: states are not repeated where a comparison or a helper has
    /// changed them by the way.
    fn state(&self, register: u8) -> Option<&'a str> {
        let name = format!("R{register}");
        let said = self.reason.iter().find_map(|line| {
            let (_, rest) = line.split_once(&name)?;
            // "R1(id=0,off=23,r=14)", "R6 invalid mem access 'scalar'"
            match rest.strip_prefix('(') {
                Some(fields) => fields.split_once(')').map(|(fields, _)| fields),
                None => rest.strip_prefix(" invalid mem access '")?.strip_suffix('\''),
            }
        });
        match (said, self.states.get(&register)) {
            (Some(said), Some(state)) if !state.starts_with(said) => Some(said),
            (_, state) => state.copied(),
        }
    }

    /// The helper or function that the last instruction calls.
    pub fn called(&self) -> Option<&'a str> {
        self.instruction.and_then(|(_, code)| callee(code))
    }

    /// Whether some line of the reason has `mark` in it.
    pub fn says(&self, mark: &str) -> bool {
        self.reason.iter().any(|line| line.contains(mark))
    }
}

/// `bpf_map_lookup_elem` of `call bpf_map_lookup_elem#1`.
pub(super) fn callee(code: &str) -> Option<&str> {
    let name = code.strip_prefix("call ")?.split('#').next()?.trim();
    (name.starts_with("bpf_")).then_some(name)
}

/// `12` and what follows the colon.
fn numbered(line: &str) -> Option<(usize, &str)> {
    let (number, rest) = line.split_once(':')?;
    Some((number.parse().ok()?, rest.trim_start()))
}

/// `from 3 to 7: R0=...`
fn split_from(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("from ")?.split_once(": ")
}

/// The numbers of the registers that a text names with `letter`: `R1`, `r1`, `w1`.
fn mentioned(text: &str, letter: char) -> impl Iterator<Item = u8> {
    text.match_indices(letter).filter_map(move |(at, _)| {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
            return None;
        }
        let digits: &str = text[at + 1..].split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok().filter(|n| *n <= 10)
    })
}

/// `R1_w=pkt(off=14,r=14) R2=5`: register by register; a state ends at a blank outside of parentheses.
fn states(text: &str) -> Vec<(u8, &str)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('R') {
        rest = &rest[at + 1..];
        let Some((name, _)) = rest.split_once('=') else { break };
        let digits = name.split('_').next().unwrap_or_default();
        let Ok(register) = digits.parse::<u8>() else { continue };
        let value = &rest[name.len() + 1..];
        let mut depth = 0usize;
        let end = value.find(|c: char| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            depth == 0 && c.is_whitespace()
        });
        let end = end.unwrap_or(value.len());
        found.push((register, &value[..end]));
        rest = &value[end..];
    }
    found
}

/// Not statistics, not source, not a path or a register state.
fn is_reason(line: &str) -> bool {
    const NOISE: [&str; 20] = [
        ";",
        "Func#",
        "Live regs",
        "Validating ",
        "callee:",
        "caller:",
        "cur state:",
        "first_idx",
        "frame",
        "func#",
        "last_idx",
        "mark_precise",
        "old state:",
        "parent ",
        "peak_states",
        "processed ",
        "regs=",
        "stack depth",
        "total_states",
        "verification time",
    ];
    // "R1=ctx() R10=fp0", and not "R1 invalid mem access".
    let only_states = || {
        let name = line.split(['=', ' ']).next().unwrap_or_default();
        line.starts_with('R') && line[name.len()..].starts_with('=')
    };
    !line.is_empty() && !NOISE.iter().any(|start| line.starts_with(start)) && !only_states()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_instruction_and_the_states_before_it() {
        let log = Log::parse(
            "0: R1=ctx(off=0,imm=0) R10=fp0\n\
             ; if (next > end)\n\
             3: (2d) if r3 > r2 goto pc+1          ; R2=pkt_end(off=0,imm=0) R3_w=pkt(off=14,r=14,imm=0)\n\
             ; return ip->protocol;\n\
             6: (71) r0 = *(u8 *)(r3 +23)\n\
             invalid access to packet, off=23 size=1, R3(id=0,off=23,r=14)\n\
             R3 offset is outside of the packet\n\
             processed 7 insns (limit 1000000)\n",
        );
        assert_eq!(log.reason.len(), 2);
        assert_eq!(log.instruction, Some((6, "r0 = *(u8 *)(r3 +23)")));
        assert_eq!(log.registers(), [(3, "id=0,off=23,r=14")]);
        assert_eq!(log.path.len(), 2);
    }

    /// Logs are cut where a buffer ends, and worded as no one foresees.
    #[test]
    fn any_text_is_read() {
        let log = "func#0 @0\n0: R1=ctx() R10=fp0\nfrom 3 to 5: R0_w=scalar(a=(b; c)) R1=pkt(r=é)\n\
                   12: (85) call bpf_x#1 ; R0=map_value_or_null(id=1\nR1(id=0,off=2,r=0) é R99 R\nR=\n: (\n(é";
        let ends = (0..=log.len()).filter(|end| log.is_char_boundary(*end));
        for end in ends {
            for start in (0..end).filter(|start| log.is_char_boundary(*start)) {
                let parsed = Log::parse(&log[start..end]);
                for (_, state) in parsed.registers() {
                    let _ = super::super::state::in_words(state);
                }
                let _ = super::super::cause::find(&parsed);
            }
        }
    }

    #[test]
    fn states_end_outside_of_parentheses() {
        let found =
            states("R0=scalar(umax=255,var_off=(0x0; 0xff)) R10=fp0 fp-8=mmmm???? refs=2 R2_w=-5");
        assert_eq!(found, [(0, "scalar(umax=255,var_off=(0x0; 0xff))"), (10, "fp0"), (2, "-5")]);
    }

    #[test]
    fn a_jump_with_the_states_of_the_next_instruction_behind_it() {
        let log = Log::parse("3: (56) if w1 != 0x0 goto pc-2 2: R1=5 R10=fp0\ninfinite loop\n");
        assert_eq!(log.instruction, Some((3, "if w1 != 0x0 goto pc-2")));
    }

    #[test]
    fn registers_of_the_instruction_when_the_reason_names_none() {
        let log = Log::parse("7: R1=pkt(r=8) R3=scalar()\n7: (0f) r1 += r3\nmath is not allowed\n");
        assert_eq!(log.registers(), [(1, "pkt(r=8)"), (3, "scalar()")]);
        assert_eq!(Log::parse("1: R2=4\n1: (85) call bpf_x#44\nno\n").registers(), []);
    }
}
