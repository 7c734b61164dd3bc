//! A register's state in words: `pkt(off=14,r=14)` is "the packet, 14 bytes of it compared with data_end".

/// What a state means; `None` for the frame pointer alone and what is not known.
pub(super) fn in_words(state: &str) -> Option<String> {
    let state = state.strip_prefix('P').filter(|s| is_number(s)).unwrap_or(state);
    if is_number(state) {
        return Some(format!("the number {state}"));
    }
    let (kind, inside) = match state.split_once('(') {
        Some((kind, rest)) => (kind, rest.strip_suffix(')').unwrap_or(rest)),
        // Only packet pointers are described without their kind, in a reason: "R1(id=0,off=23,r=14)".
        None if state.contains("r=") => ("pkt", state),
        None => (state, ""),
    };
    let fields = fields(inside);
    let field = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
    Some(match kind {
        "scalar" | "inv" => format!("a number, {}", range(&fields)),
        "ctx" => "the context".into(),
        "pkt" => {
            let moved =
                if field("id").is_some_and(|id| id != "0") { " at a variable offset" } else { "" };
            match field("r").unwrap_or("0") {
                "0" => format!("the packet{moved}, not compared with data_end"),
                "1" => format!("the packet{moved}, 1 byte of it compared with data_end"),
                bytes => format!("the packet{moved}, {bytes} bytes of it compared with data_end"),
            }
        }
        "pkt_end" => "data_end".into(),
        "pkt_meta" => "the packet's metadata".into(),
        "map_ptr" => "a map".into(),
        "map_value" => {
            let size = field("vs").unwrap_or("?");
            match bounds(&fields) {
                (Some(_), _) | (_, Some(_)) => {
                    format!("a map's value of {size} bytes, at an offset of {}", range(&fields))
                }
                _ => format!("a map's value of {size} bytes"),
            }
        }
        "map_value_or_null" => "what a map lookup gave: a value, or NULL".into(),
        "ringbuf_mem" | "mem" | "alloc_mem" => match field("sz").or(field("mem_size")) {
            Some(size) => format!("{size} bytes of memory"),
            None => "memory".into(),
        },
        other if other.ends_with("sock_or_null") => "a socket, or NULL".into(),
        other if other.ends_with("_or_null") => "memory, or NULL".into(),
        "sock" | "sock_common" | "tcp_sock" => "a socket".into(),
        other if other.starts_with("fp") => format!("the stack at {other}"),
        other => match other.rsplit_once("ptr_") {
            Some((_, of)) if !of.is_empty() => format!("a kernel pointer (struct {of})"),
            _ => return None,
        },
    })
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    !digits.is_empty()
        && digits.bytes().all(|b| b.is_ascii_hexdigit())
        && digits.starts_with(|c: char| c.is_ascii_digit())
}

/// `smin=0,smax=umax=255,var_off=(0x0; 0xff)`: names with their values; several names may share one.
fn fields(inside: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut depth = 0usize;
    let parts = inside.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c == ','
    });
    for part in parts {
        let mut names: Vec<&str> = part.split('=').collect();
        let Some(value) = names.pop() else { continue };
        found.extend(names.into_iter().map(|name| (name, value)));
    }
    found
}

/// The smallest and largest value as unsigned numbers, where the state says them. A signed bound says as much when the
/// number cannot be negative.
fn bounds(fields: &[(&str, &str)]) -> (Option<u64>, Option<u64>) {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    let of = |name: &str| fields.iter().find(|(n, _)| *n == name).and_then(|(_, v)| number(v));
    (of("umin").or(of("smin").filter(|n| *n > 0)), of("umax"))
}

fn range(fields: &[(&str, &str)]) -> String {
    match bounds(fields) {
        (None, None) => "any".into(),
        (low, None) => format!("{} or more", low.unwrap_or(0)),
        (low, Some(high)) => format!("{} to {high}", low.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn states_of_old_and_new_kernels() {
        let cases = [
            ("5", "the number 5"),
            ("0x28b0a", "the number 0x28b0a"),
            ("P0", "the number 0"),
            ("scalar()", "a number, any"),
            (
                "scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
                "a number, 0 to 4294967295",
            ),
            ("scalar(umax=255,var_off=(0x0; 0xff))", "a number, 0 to 255"),
            ("scalar(umin=1,umax=7)", "a number, 1 to 7"),
            ("pkt(r=0)", "the packet, not compared with data_end"),
            ("pkt(off=14,r=14,imm=0)", "the packet, 14 bytes of it compared with data_end"),
            (
                "map_value_or_null(id=1,off=0,ks=4,vs=16,imm=0)",
                "what a map lookup gave: a value, or NULL",
            ),
            ("map_value(map=m,ks=4,vs=256)", "a map's value of 256 bytes"),
            (
                "map_value(off=0,ks=4,vs=256,umax=252,var_off=(0x0; 0xfc))",
                "a map's value of 256 bytes, at an offset of 0 to 252",
            ),
            ("id=0,off=23,r=14", "the packet, 14 bytes of it compared with data_end"),
            ("fp-8", "the stack at fp-8"),
            ("trusted_ptr_task_struct()", "a kernel pointer (struct task_struct)"),
        ];
        for (state, words) in cases {
            assert_eq!(in_words(state).as_deref(), Some(words), "{state}");
        }
        assert_eq!(in_words("novelty(x=1)"), None);
    }
}
