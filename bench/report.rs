//! A measurement and its peer as one line.

/// What the ratio should be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// The peer takes at least that many times as long.
    Faster(f64),
    /// It takes at most that many times as long as the peer.
    AtMost(f64),
    /// The peer is there to compare with.
    None,
}

/// What was measured, in seconds.
#[derive(Debug, Clone)]
pub struct Side {
    pub name: String,
    pub seconds: f64,
}

pub fn side(name: impl Into<String>, seconds: f64) -> Side {
    Side { name: name.into(), seconds }
}

/// Prints `what: ours 0.12 s, peer 3.1 s: 26x faster (target 10x): holds`.
pub fn compare(what: &str, ours: &Side, peer: &Side, target: Target) {
    let (faster, slower) = (peer.seconds / ours.seconds, ours.seconds / peer.seconds);
    let verdict = |holds| if holds { "holds" } else { "DOES NOT HOLD" };
    let ratio = match target {
        Target::Faster(wanted) => {
            format!("{faster:.1}x faster (target {wanted}x): {}", verdict(faster >= wanted))
        }
        Target::AtMost(most) => {
            format!("{slower:.2}x the time (target {most}x at most): {}", verdict(slower <= most))
        }
        Target::None if faster >= 1.0 => format!("{faster:.1}x faster (no target)"),
        Target::None => format!("{slower:.2}x the time (no target)"),
    };
    let (our_time, peer_time) = (time(ours.seconds), time(peer.seconds));
    println!("  {what}: {} {our_time}, {} {peer_time}: {ratio}", ours.name, peer.name);
}

pub fn heading(text: &str) {
    println!("\n{text}");
}

/// Seconds, in the unit that suits them.
pub fn time(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s if s >= 1e-6 => (s * 1e6, "us"),
        s => (s * 1e9, "ns"),
    };
    let digits = if value >= 100.0 { 0 } else { 1 };
    format!("{value:.digits$} {unit}")
}

/// The middle one, of several.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
