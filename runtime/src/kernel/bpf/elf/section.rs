//! What the name of a program's section says of it (`Documentation/bpf/libbpf/program_types.rst`): its type, the place it
//! is loaded for, and for tracing what it is to be attached to.

use aya_obj::generated::bpf_attach_type::{self, *};

use super::invalid;
use crate::Error;
use crate::kernel::bpf::program::ProgramKind;
use crate::kernel::bpf::sys;

/// What a program section's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramSection {
    /// As the source spells it, `?` included.
    pub name: String,
    pub kind: ProgramKind,
    /// `enum bpf_attach_type`
    pub expected_attach_type: u32,
    pub flags: u32,
    /// What follows the known word: `sched/sched_switch` of `tracepoint/sched/sched_switch`. Empty when nothing does.
    pub target: String,
    /// `SEC("?tc")`: loaded only when asked for by name.
    pub optional: bool,
    /// The section's index in the ELF file.
    pub index: usize,
}

/// A word that a section's name may start with, and what it means.
struct Row {
    word: &'static str,
    kind: ProgramKind,
    attach: u32,
    flags: u32,
}

const fn row(word: &'static str, kind: ProgramKind, attach: bpf_attach_type) -> Row {
    Row { word, kind, attach: attach as u32, flags: 0 }
}

/// A type that is not loaded for one place. tc programs are among them whatever their hook: tcx and netkit do not look at
/// the attach type, and a program array takes only programs of one.
const fn plain(word: &'static str, kind: ProgramKind) -> Row {
    Row { word, kind, attach: 0, flags: 0 }
}

/// XDP programs that take packets of several buffers.
const fn frags(row: Row) -> Row {
    Row { flags: sys::F_XDP_HAS_FRAGS, ..row }
}

use ProgramKind as Kind;

/// The longer word stands before the one it starts with.
const KNOWN: [Row; 66] = [
    plain("tc", Kind::TC),
    plain("tcx/ingress", Kind::TC),
    plain("tcx/egress", Kind::TC),
    plain("netkit/primary", Kind::TC),
    plain("netkit/peer", Kind::TC),
    plain("classifier", Kind::TC),
    plain("action", Kind::TC_ACTION),
    frags(row("xdp.frags/devmap", Kind::XDP, BPF_XDP_DEVMAP)),
    frags(row("xdp.frags/cpumap", Kind::XDP, BPF_XDP_CPUMAP)),
    row("xdp/devmap", Kind::XDP, BPF_XDP_DEVMAP),
    row("xdp/cpumap", Kind::XDP, BPF_XDP_CPUMAP),
    row("xdp_devmap", Kind::XDP, BPF_XDP_DEVMAP),
    row("xdp_cpumap", Kind::XDP, BPF_XDP_CPUMAP),
    frags(plain("xdp.frags", Kind::XDP)),
    plain("xdp", Kind::XDP),
    plain("socket", Kind::SOCKET_FILTER),
    row("cgroup_skb/ingress", Kind::CGROUP_SKB, BPF_CGROUP_INET_INGRESS),
    row("cgroup_skb/egress", Kind::CGROUP_SKB, BPF_CGROUP_INET_EGRESS),
    row("cgroup/sock_create", Kind::CGROUP_SOCK, BPF_CGROUP_INET_SOCK_CREATE),
    row("cgroup/sock_release", Kind::CGROUP_SOCK, BPF_CGROUP_INET_SOCK_RELEASE),
    row("cgroup/sock", Kind::CGROUP_SOCK, BPF_CGROUP_INET_SOCK_CREATE),
    row("cgroup/post_bind4", Kind::CGROUP_SOCK, BPF_CGROUP_INET4_POST_BIND),
    row("cgroup/post_bind6", Kind::CGROUP_SOCK, BPF_CGROUP_INET6_POST_BIND),
    row("cgroup/bind4", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_BIND),
    row("cgroup/bind6", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_BIND),
    row("cgroup/connect4", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_CONNECT),
    row("cgroup/connect6", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_CONNECT),
    row("cgroup/sendmsg4", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_UDP4_SENDMSG),
    row("cgroup/sendmsg6", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_UDP6_SENDMSG),
    row("cgroup/recvmsg4", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_UDP4_RECVMSG),
    row("cgroup/recvmsg6", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_UDP6_RECVMSG),
    row("cgroup/getpeername4", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_GETPEERNAME),
    row("cgroup/getpeername6", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_GETPEERNAME),
    row("cgroup/getsockname4", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET4_GETSOCKNAME),
    row("cgroup/getsockname6", Kind::CGROUP_SOCK_ADDR, BPF_CGROUP_INET6_GETSOCKNAME),
    row("cgroup/getsockopt", Kind::CGROUP_SOCKOPT, BPF_CGROUP_GETSOCKOPT),
    row("cgroup/setsockopt", Kind::CGROUP_SOCKOPT, BPF_CGROUP_SETSOCKOPT),
    row("sockops", Kind::SOCK_OPS, BPF_CGROUP_SOCK_OPS),
    row("sk_lookup", Kind::SK_LOOKUP, BPF_SK_LOOKUP),
    plain("tracepoint", Kind::TRACEPOINT),
    plain("raw_tracepoint", Kind::RAW_TRACEPOINT),
    plain("raw_tp", Kind::RAW_TRACEPOINT),
    plain("kprobe", Kind::KPROBE),
    plain("kretprobe", Kind::KPROBE),
    row("fentry", Kind::TRACING, BPF_TRACE_FENTRY),
    row("fexit", Kind::TRACING, BPF_TRACE_FEXIT),
    row("fmod_ret", Kind::TRACING, BPF_MODIFY_RETURN),
    row("tp_btf", Kind::TRACING, BPF_TRACE_RAW_TP),
    plain("tp", Kind::TRACEPOINT),
    row("cgroup/dev", Kind::CGROUP_DEVICE, BPF_CGROUP_DEVICE),
    row("cgroup/sysctl", Kind::CGROUP_SYSCTL, BPF_CGROUP_SYSCTL),
    row("sk_skb/stream_parser", Kind::SK_SKB, BPF_SK_SKB_STREAM_PARSER),
    row("sk_skb/stream_verdict", Kind::SK_SKB, BPF_SK_SKB_STREAM_VERDICT),
    row("sk_skb/verdict", Kind::SK_SKB, BPF_SK_SKB_VERDICT),
    plain("sk_skb", Kind::SK_SKB),
    row("sk_msg", Kind::SK_MSG, BPF_SK_MSG_VERDICT),
    // What other programs attach, by a pin: `ip route ... encap bpf`, `bpftool prog attach pinned ...`.
    row("sk_reuseport/migrate", Kind::SK_REUSEPORT, BPF_SK_REUSEPORT_SELECT_OR_MIGRATE),
    row("sk_reuseport", Kind::SK_REUSEPORT, BPF_SK_REUSEPORT_SELECT),
    row("flow_dissector", Kind::FLOW_DISSECTOR, BPF_FLOW_DISSECTOR),
    plain("lwt_in", Kind::LWT_IN),
    plain("lwt_out", Kind::LWT_OUT),
    plain("lwt_xmit", Kind::LWT_XMIT),
    plain("lwt_seg6local", Kind::LWT_SEG6LOCAL),
    plain("perf_event", Kind::PERF_EVENT),
    plain("raw_tracepoint.w", Kind::RAW_TRACEPOINT_WRITABLE),
    plain("raw_tp.w", Kind::RAW_TRACEPOINT_WRITABLE),
];

/// What the error for an unknown section lists.
pub(super) const SPELLINGS: &str = "tc, tc/NAME, tcx/ingress, tcx/egress, netkit/primary, netkit/peer, classifier, action, \
                                    xdp, xdp.frags, xdp/devmap, xdp/cpumap, socket, cgroup_skb/ingress, \
                                    cgroup_skb/egress, cgroup/connect4, cgroup/sendmsg4 ..., sockops, sk_lookup, \
                                    tracepoint/GROUP/NAME, raw_tp/NAME, kprobe/FUNCTION, fentry/FUNCTION, \
                                    sk_skb/stream_verdict, sk_msg, sk_reuseport, flow_dissector, lwt_xmit ...";

/// The words that sections with programs of a kind start with.
pub(in crate::kernel::bpf) fn sections_of(kind: ProgramKind) -> Vec<&'static str> {
    KNOWN.iter().filter(|row| row.kind == kind).map(|row| row.word).collect()
}

/// The hooks of a cgroup: word, type of program, attach type.
pub(in crate::kernel::bpf) fn cgroup_hooks()
-> impl Iterator<Item = (&'static str, ProgramKind, u32)> {
    KNOWN.iter().filter_map(|row| match row.word.split_once('/') {
        Some(("cgroup" | "cgroup_skb", word)) => Some((word, row.kind, row.attach)),
        None if row.kind == Kind::SOCK_OPS => Some((row.word, row.kind, row.attach)),
        _ => None,
    })
}

impl ProgramSection {
    /// `None` for a name that starts with no known word.
    pub fn parse(full: &str, index: usize) -> Option<ProgramSection> {
        let name = full.strip_prefix('?').unwrap_or(full);
        let (row, rest) = KNOWN.iter().find_map(|row| {
            let rest = name.strip_prefix(row.word)?;
            (rest.is_empty() || rest.starts_with(['/', '_'])).then_some((row, rest))
        })?;
        Some(ProgramSection {
            name: full.to_owned(),
            kind: row.kind,
            expected_attach_type: row.attach,
            flags: row.flags,
            target: rest.trim_start_matches('/').to_owned(),
            optional: full.starts_with('?'),
            index,
        })
    }

    /// The name the parser gets: unique, so that `.BTF.ext` finds the right one.
    pub(super) fn alias(&self) -> String {
        format!("classifier/{}", self.index)
    }
}

pub(super) fn unknown_section(name: &str) -> Error {
    let bare = name.trim_start_matches('?');
    // A name of the program's own may follow: as many words are compared as the known section has.
    let first_words = |count| {
        let end = bare.match_indices('/').nth(count - 1).map_or(bare.len(), |(at, _)| at);
        &bare[..end]
    };
    let nearest = KNOWN
        .iter()
        .map(|Row { word, .. }| {
            let words = first_words(word.split('/').count());
            // A hook without its side is nearer to the hook than to anything that merely looks like it.
            let whole = word.strip_prefix(words).is_some_and(|rest| rest.starts_with('/'));
            (*word, if whole { 1.0 } else { strsim::normalized_damerau_levenshtein(word, words) })
        })
        .filter(|(_, score)| *score > 0.6)
        .max_by(|a, b| a.1.total_cmp(&b.1));
    let known = format!("known are: {SPELLINGS}");
    invalid(format!("SEC(\"{name}\") is not a section that can be loaded here")).hint(match nearest
    {
        Some((word, _)) => format!("did you mean \"{word}\"? {known}"),
        None => known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sections_say() {
        let cases = [
            ("tc", Kind::TC, 0, ""),
            ("?tc/name", Kind::TC, 0, "name"),
            ("xdp/devmap", Kind::XDP, 33, ""),
            ("xdp/cpumap/name", Kind::XDP, 35, "name"),
            ("cgroup/sock_create", Kind::CGROUP_SOCK, 2, ""),
            ("cgroup/sock_release", Kind::CGROUP_SOCK, 34, ""),
            ("cgroup/connect6", Kind::CGROUP_SOCK_ADDR, 11, ""),
            ("sk_lookup/steer", Kind::SK_LOOKUP, 36, "steer"),
            ("tracepoint/sched/sched_switch", Kind::TRACEPOINT, 0, "sched/sched_switch"),
            ("tp_btf/netif_rx", Kind::TRACING, 23, "netif_rx"),
            ("fentry/icmp_rcv", Kind::TRACING, 24, "icmp_rcv"),
        ];
        for (name, kind, attach, target) in cases {
            let section = ProgramSection::parse(name, 0).expect(name);
            assert_eq!((section.kind, section.expected_attach_type), (kind, attach), "{name}");
            assert_eq!(section.target, target, "{name}");
        }
        assert_eq!(ProgramSection::parse("cgroup/connect", 0), None);
    }

    #[test]
    fn no_row_hides_another() {
        for row in &KNOWN {
            let section = ProgramSection::parse(row.word, 0).expect("known");
            assert_eq!(section.expected_attach_type, row.attach, "{}", row.word);
            assert_eq!(section.kind, row.kind, "{}", row.word);
        }
    }
}
