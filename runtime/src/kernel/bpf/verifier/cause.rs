//! The usual mistakes: how the verifier says them, what that means, and what to try.

use super::log::{Log, callee};

/// A known reason.
pub(super) struct Cause {
    /// Completes "the verifier refused it: ".
    pub sentence: String,
    /// One thing to try.
    pub hint: String,
}

/// One row: what some line of the reason contains (any of these), what it means, what to try. `{helper}` stands for the
/// helper that is called, `{kept}` for the one whose result is not given back, `{mover}` for the last one that may have
/// moved the packet. The first row that fits counts.
struct Row {
    marks: &'static [&'static str],
    /// A further condition.
    when: fn(&Log<'_>) -> bool,
    sentence: &'static str,
    hint: &'static str,
}

const ALWAYS: fn(&Log<'_>) -> bool = |_| true;

const ROWS: &[Row] = &[
    Row {
        marks: &["invalid access to packet"],
        when: ALWAYS,
        sentence: "it uses packet bytes that were not compared with data_end",
        hint: "compare first: if ((void *)(header + 1) > data_end) return ...;",
    },
    Row {
        marks: &["math between pkt pointer", "makes pkt pointer be out of bounds"],
        when: ALWAYS,
        sentence: "it moves a packet pointer by a number without bounds",
        hint: "bound the number first (offset &= 0xff, or: if (offset > MAX) return ...), then compare with data_end",
    },
    Row {
        marks: &[
            "_or_null'",
            "type=map_value_or_null",
            "type=ringbuf_mem_or_null",
            "arithmetic on map_value_or_null",
        ],
        when: ALWAYS,
        sentence: "it uses a result that may be NULL",
        hint: "compare it with NULL first: if (!value) return ...;",
    },
    Row {
        marks: &["invalid mem access 'scalar'", "invalid mem access 'inv'"],
        when: |log| mover(log).is_some(),
        sentence: "it uses a packet pointer that {mover} has made void",
        hint: "{mover} may move the packet: read data and data_end again after it, and compare again",
    },
    Row {
        marks: &["invalid mem access 'scalar'", "invalid mem access 'inv'"],
        when: ALWAYS,
        sentence: "it uses a number as an address",
        hint: "packets are reached through data, contexts by their fields, kernel memory with bpf_probe_read_kernel",
    },
    Row {
        marks: &["invalid access to map value"],
        when: ALWAYS,
        sentence: "it may reach beyond the map's value",
        hint: "compare the index with the array's length, as an unsigned number, right before using it",
    },
    Row {
        marks: &["zero-sized read", "unbounded memory access, use", "invalid zero-sized"],
        when: |log| log.called().is_some(),
        sentence: "the length given to {helper} may be 0, or too large",
        hint: "bound it on both sides: if (length == 0 || length > sizeof(buffer)) return ...;",
    },
    Row {
        marks: &["min value is negative"],
        when: ALWAYS,
        sentence: "a number that may be negative is used as a length or an index",
        hint: "use an unsigned number, and compare it with the largest one allowed",
    },
    Row {
        marks: &["unbounded memory access", "max value is outside of the allowed memory range"],
        when: ALWAYS,
        sentence: "it uses an index without bounds",
        hint: "compare the index with the array's length, as an unsigned number, right before using it",
    },
    Row {
        marks: &["infinite loop detected", "back-edge"],
        when: ALWAYS,
        sentence: "it has a loop without an end that can be seen",
        hint: "bound the loop with a constant, or use bpf_loop",
    },
    Row {
        marks: &["BPF program is too large", "too many instructions", "jumps is too complex"],
        when: ALWAYS,
        sentence: "it takes too many steps to verify (1,000,000 at most)",
        hint: "make loops smaller, use bpf_loop, or split the program with tail calls",
    },
    Row {
        marks: &["unknown func unknown", "invalid func unknown"],
        when: ALWAYS,
        sentence: "it calls a helper that this kernel does not have",
        hint: "`cnfscript features` lists the helpers of each type of program",
    },
    Row {
        marks: &["unknown func", "program of this type cannot use helper"],
        when: |log| log.called().is_some(),
        sentence: "{helper} is not for programs of this type, or not in this kernel",
        hint: "`cnfscript features` lists the helpers of each type of program",
    },
    Row {
        marks: &["GPL-restricted", "GPL compatible", "GPL-compatible"],
        when: ALWAYS,
        sentence: "it calls a helper that is only for programs under the GPL",
        hint: "add: char LICENSE[] SEC(\"license\") = \"GPL\";",
    },
    Row {
        marks: &[" expected="],
        when: |log| log.called().is_some(),
        sentence: "an argument of {helper} is of another kind than it takes",
        hint: "bpf-helpers(7) says what each helper takes",
    },
    Row {
        marks: &["invalid read from stack", "invalid indirect read from stack"],
        when: ALWAYS,
        sentence: "it reads stack bytes that nothing has written",
        hint: "set the variable whole, padding too: struct key key = {};",
    },
    Row {
        marks: &["invalid write to stack", "invalid indirect access to stack", "invalid stack"],
        when: |log| log.called().is_some(),
        sentence: "{helper} is given more bytes than the variable on the stack has",
        hint: "give it sizeof(variable)",
    },
    Row {
        marks: &["invalid write to stack", "invalid stack", "unbounded variable-offset"],
        when: ALWAYS,
        sentence: "it may reach beyond a variable on the stack",
        hint: "compare the index with the array's length, as an unsigned number, right before using it",
    },
    Row {
        marks: &["combined stack size", "stack frame size"],
        when: ALWAYS,
        sentence: "its functions need more than the 512 bytes of stack there are",
        hint: "keep large buffers in a per-CPU array map",
    },
    Row {
        marks: &["invalid bpf_context access"],
        when: ALWAYS,
        sentence: "it uses a field of its context that this type of program may not read, or not write",
        hint: "linux/bpf.h has the fields; many are read-only, or for other types of programs",
    },
    Row {
        marks: &["variable ctx access", "dereference of modified ctx", "modified ctx ptr"],
        when: ALWAYS,
        sentence: "it reaches into its context at a place that is only known at run time",
        hint: "name the field: skb->mark, and not ((__u32 *)skb)[n]",
    },
    Row {
        marks: &["write into map forbidden"],
        when: ALWAYS,
        sentence: "it writes to a constant",
        hint: "take the `const` away, or let the script set it: {globals = {name = value}}",
    },
    Row {
        marks: &["Unreleased reference"],
        when: |log| kept(log).is_some(),
        sentence: "it ends without giving back what {kept} gave",
        hint: "every way out needs bpf_ringbuf_submit or bpf_ringbuf_discard, or bpf_sk_release for a socket",
    },
    Row {
        marks: &["R0 !read_ok"],
        when: |log| log.instruction.is_some_and(|(_, code)| code == "exit"),
        sentence: "it ends without a result",
        hint: "every way out needs a return with a value",
    },
    Row {
        marks: &["!read_ok"],
        when: ALWAYS,
        sentence: "it uses a variable that nothing has set",
        hint: "give it a value where it is declared; helpers forget their arguments (r1 to r5)",
    },
    Row {
        marks: &["At program exit the register R0", "At program exit the register"],
        when: ALWAYS,
        sentence: "its result is not one that this type of program may give",
        hint: "return a constant of that type: TC_ACT_*, XDP_*, 0 or 1 for cgroups, SK_PASS or SK_DROP",
    },
    Row {
        marks: &["unreachable insn"],
        when: ALWAYS,
        sentence: "a part of it can never run",
        hint: "look for code after an endless loop or a call that does not return",
    },
];

/// The row that fits, its placeholders filled in.
pub(super) fn find(log: &Log<'_>) -> Option<Cause> {
    let row = ROWS.iter().find(|row| row.marks.iter().any(|m| log.says(m)) && (row.when)(log))?;
    let fill = |text: &str| {
        text.replace("{helper}", log.called().unwrap_or("a helper"))
            .replace("{kept}", kept(log).unwrap_or("a helper"))
            .replace("{mover}", mover(log).unwrap_or("a helper"))
    };
    Some(Cause { sentence: fill(row.sentence), hint: fill(row.hint) })
}

/// The helper that gave what is not given back: `Unreleased reference id=2 alloc_insn=5`.
fn kept<'a>(log: &Log<'a>) -> Option<&'a str> {
    let line = log.reason.iter().find(|line| line.starts_with("Unreleased reference"))?;
    let at: usize = line.rsplit_once("alloc_insn=")?.1.trim().parse().ok()?;
    log.path.iter().rev().find(|(n, _)| *n == at).and_then(|(_, code)| callee(code))
}

/// The last helper on the way that may have moved the packet (`bpf_helper_changes_pkt_data`, net/core/filter.c), when the
/// register that is refused held a packet pointer before.
fn mover<'a>(log: &Log<'a>) -> Option<&'a str> {
    const MOVERS: [&str; 20] = [
        "bpf_clone_redirect",
        "bpf_l3_csum_replace",
        "bpf_l4_csum_replace",
        "bpf_lwt_push_encap",
        "bpf_lwt_seg6_action",
        "bpf_lwt_seg6_adjust_srh",
        "bpf_lwt_seg6_store_bytes",
        "bpf_msg_pop_data",
        "bpf_msg_pull_data",
        "bpf_msg_push_data",
        "bpf_skb_adjust_room",
        "bpf_skb_change_head",
        "bpf_skb_change_proto",
        "bpf_skb_change_tail",
        "bpf_skb_pull_data",
        "bpf_skb_store_bytes",
        "bpf_skb_vlan_pop",
        "bpf_skb_vlan_push",
        "bpf_xdp_adjust_head",
        "bpf_xdp_adjust_tail",
    ];
    let register: u8 = log.registers().first()?.0;
    let set = |code: &str| {
        code.split_once(" = ").is_some_and(|(left, _)| {
            left.strip_prefix(['r', 'w']).is_some_and(|n| n.parse() == Ok(register))
        })
    };
    // Backwards: the helper must come before the register was given its value.
    let since = log.path.iter().rev().take_while(|(_, code)| !set(code));
    since.filter_map(|(_, code)| callee(code)).find(|name| MOVERS.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_reached() {
        for (at, row) in ROWS.iter().enumerate() {
            for mark in row.marks {
                let earlier = ROWS[..at].iter().any(|other| {
                    other.when as usize == ALWAYS as usize
                        && other.marks.iter().any(|m| mark.contains(m))
                });
                assert!(!earlier, "\"{mark}\" is taken by a row before its own");
            }
        }
    }

    #[test]
    fn a_packet_pointer_that_a_helper_made_void() {
        let log = "2: (61) r6 = *(u32 *)(r1 +76)  ; R6=pkt(r=0)\n\
                   7: (85) call bpf_skb_pull_data#39  ; R0=scalar()\n\
                   8: (71) r1 = *(u8 *)(r6 +12)\n\
                   R6 invalid mem access 'scalar'\n";
        let cause = find(&Log::parse(log)).expect("known");
        assert!(cause.sentence.contains("bpf_skb_pull_data has made void"), "{}", cause.sentence);
        let set_after = log.replace("8: (71)", "8: (61) r6 = *(u32 *)(r2 +0)\n9: (71)");
        let cause = find(&Log::parse(&set_after)).expect("known");
        assert_eq!(cause.sentence, "it uses a number as an address");
    }
}
