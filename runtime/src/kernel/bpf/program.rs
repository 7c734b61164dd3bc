//! Loaded programs: what they are, what they are called, and running one on a packet.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;

use super::sys::{self, bpf_prog_info};
use crate::{Error, Result};

pub use super::sys::TestRun;

/// A type of program (`enum bpf_prog_type`); the number is the kernel's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProgramKind(pub u32);

/// Names as `linux/bpf.h` has them, lower-case; the index is the number.
const NAMES: [&str; 33] = [
    "unspec",
    "socket_filter",
    "kprobe",
    "tc",
    "tc_action",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
];

impl ProgramKind {
    pub const SOCKET_FILTER: ProgramKind = ProgramKind(1);
    pub const KPROBE: ProgramKind = ProgramKind(2);
    /// Programs of tcx, netkit and clsact (`BPF_PROG_TYPE_SCHED_CLS`).
    pub const TC: ProgramKind = ProgramKind(3);
    pub const TC_ACTION: ProgramKind = ProgramKind(4);
    pub const TRACEPOINT: ProgramKind = ProgramKind(5);
    pub const XDP: ProgramKind = ProgramKind(6);
    pub const PERF_EVENT: ProgramKind = ProgramKind(7);
    pub const CGROUP_SKB: ProgramKind = ProgramKind(8);
    pub const CGROUP_SOCK: ProgramKind = ProgramKind(9);
    /// Of a route's encapsulation (ip-route(8), `encap bpf`).
    pub const LWT_IN: ProgramKind = ProgramKind(10);
    pub const LWT_OUT: ProgramKind = ProgramKind(11);
    pub const LWT_XMIT: ProgramKind = ProgramKind(12);
    pub const SOCK_OPS: ProgramKind = ProgramKind(13);
    /// Of the connections in a sockmap: what they receive, what they send.
    pub const SK_SKB: ProgramKind = ProgramKind(14);
    pub const CGROUP_DEVICE: ProgramKind = ProgramKind(15);
    pub const SK_MSG: ProgramKind = ProgramKind(16);
    pub const RAW_TRACEPOINT: ProgramKind = ProgramKind(17);
    /// connect, bind, sendmsg ... of sockets in a cgroup.
    pub const CGROUP_SOCK_ADDR: ProgramKind = ProgramKind(18);
    pub const LWT_SEG6LOCAL: ProgramKind = ProgramKind(19);
    pub const SK_REUSEPORT: ProgramKind = ProgramKind(21);
    pub const FLOW_DISSECTOR: ProgramKind = ProgramKind(22);
    pub const CGROUP_SYSCTL: ProgramKind = ProgramKind(23);
    pub const RAW_TRACEPOINT_WRITABLE: ProgramKind = ProgramKind(24);
    pub const CGROUP_SOCKOPT: ProgramKind = ProgramKind(25);
    /// fentry, fexit.
    pub const TRACING: ProgramKind = ProgramKind(26);
    pub const SK_LOOKUP: ProgramKind = ProgramKind(30);

    /// "tc", "xdp", "tracing"
    pub fn name(self) -> &'static str {
        NAMES.get(self.0 as usize).copied().unwrap_or("unknown")
    }
}

impl fmt::Display for ProgramKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is left of a page for a packet that a test run makes, with its head and tail room: about (net/bpf/test_run.c,
/// `bpf_test_init`).
const ONE_PAGE: usize = 3400;

/// A loaded program. Cheap to clone; the kernel keeps it while a clone, a hook or a pin holds it.
#[derive(Debug, Clone)]
pub struct Program(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    kind: ProgramKind,
    section: String,
    fd: OwnedFd,
    id: u32,
    tag: [u8; 8],
}

/// What the kernel says of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    pub id: u32,
    /// The function's whole name where it is known, else the 15 bytes that the kernel keeps.
    pub name: String,
    pub kind: ProgramKind,
    /// Hash of the instructions, as hexadecimal digits.
    pub tag: String,
    /// Ids of the maps it uses.
    pub map_ids: Vec<u32>,
    pub btf_id: u32,
    pub gpl_compatible: bool,
    /// Nanoseconds since boot.
    pub load_time: u64,
    pub uid: u32,
    /// Bytes of translated and of machine code; the latter 0 without JIT.
    pub translated_size: u32,
    pub jited_size: u32,
    pub verified_instructions: u32,
    /// Only counted while `kernel.bpf_stats_enabled` is set.
    pub run_count: u64,
    pub run_nanoseconds: u64,
}

impl Program {
    pub(super) fn new(fd: OwnedFd, name: String, section: String) -> Result<Program> {
        let info = raw_info(fd.as_fd()).map_err(|e| refusal("bpf.program", e).subject(&name))?;
        Ok(Program(Arc::new(Inner {
            name,
            section,
            kind: ProgramKind(info.type_),
            id: info.id,
            tag: info.tag,
            fd,
        })))
    }

    /// Takes over a program's descriptor; the kernel's name (15 bytes at most) is completed from its BTF.
    pub fn from_fd(fd: OwnedFd) -> Result<Program> {
        let info = raw_info(fd.as_fd()).map_err(|e| refusal("bpf.program", e))?;
        let name = full_name(fd.as_fd(), &info);
        Program::new(fd, name, String::new())
    }

    /// # Errors
    /// ENOENT when no program has this id (any more).
    pub fn by_id(id: u32) -> Result<Program> {
        let fd = sys::fd_by_id(sys::IdKind::Program, id).map_err(|errno| match errno {
            Errno::ENOENT => {
                Error::new("bpf.program", "ENOENT", format!("no program has the id {id}"))
            }
            errno => refusal("bpf.program", errno).subject(id.to_string()),
        })?;
        Program::from_fd(fd)
    }

    /// The function's full name, as the source spells it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    pub fn kind(&self) -> ProgramKind {
        self.0.kind
    }

    /// The section as the source spells it ("tcx/ingress"); empty when loaded by another process.
    pub fn section(&self) -> &str {
        &self.0.section
    }

    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Hash of the instructions, 16 hexadecimal digits.
    pub fn tag(&self) -> String {
        hex(&self.0.tag)
    }

    /// # Errors
    /// EPERM without CAP_BPF.
    pub fn info(&self) -> Result<ProgramInfo> {
        let failed = |e| refusal("program.info", e).subject(self.name());
        let raw = raw_info(self.as_fd()).map_err(failed)?;
        let map_ids = sys::prog_map_ids(self.as_fd()).map_err(failed)?;
        Ok(ProgramInfo { name: self.name().to_owned(), ..ProgramInfo::new(&raw, map_ids) })
    }

    /// Runs the program `repeat` times on `packet`, with `ctx` (`struct __sk_buff` or `struct xdp_md` bytes, or empty).
    ///
    /// # Errors
    /// EINVAL for a packet shorter than an Ethernet header (14 bytes), ENOTSUPP for kinds that cannot be run.
    pub fn test_run(&self, packet: &[u8], ctx: &[u8], repeat: u32) -> Result<TestRun> {
        sys::prog_test_run(self.as_fd(), packet, ctx, repeat).map_err(|errno| {
            let error = refusal("program.test_run", errno).subject(self.name());
            match errno {
                Errno::EINVAL if packet.len() < 14 => error
                    .because(format!("a packet of {} bytes is too short", packet.len()))
                    .hint("an Ethernet frame has at least 14 bytes"),
                Errno::EINVAL if packet.len() > ONE_PAGE => error
                    .because(format!("a packet of {} bytes is too long", packet.len()))
                    .hint("the kernel runs programs on packets of about 3500 bytes at most"),
                _ => error,
            }
        })
    }

    /// Pins on a bpffs. EEXIST when the path is taken.
    pub fn pin(&self, path: &Path) -> Result<()> {
        super::pins::pin(self.as_fd(), "program.pin", path)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

/// The same kernel program.
impl PartialEq for Program {
    fn eq(&self, other: &Program) -> bool {
        self.id() == other.id()
    }
}

impl ProgramInfo {
    fn new(raw: &bpf_prog_info, map_ids: Vec<u32>) -> Self {
        ProgramInfo {
            id: raw.id,
            name: sys::name_of(&raw.name),
            kind: ProgramKind(raw.type_),
            tag: hex(&raw.tag),
            map_ids,
            btf_id: raw.btf_id,
            gpl_compatible: raw.gpl_compatible() != 0,
            load_time: raw.load_time,
            uid: raw.created_by_uid,
            translated_size: raw.xlated_prog_len,
            jited_size: raw.jited_prog_len,
            verified_instructions: raw.verified_insns,
            run_count: raw.run_cnt,
            run_nanoseconds: raw.run_time_ns,
        }
    }
}

fn raw_info(fd: BorrowedFd<'_>) -> sys::SysResult<bpf_prog_info> {
    sys::info(fd, |_| {})
}

/// The kernel cuts names at 15 bytes; a program's BTF has the whole one as its first function.
fn full_name(fd: BorrowedFd<'_>, info: &bpf_prog_info) -> String {
    let short = sys::name_of(&info.name);
    if short.len() < sys::NAME_LEN {
        return short;
    }
    let whole = || {
        let first = sys::prog_first_function(fd).ok().flatten()?;
        let btf = super::btf::by_id(info.btf_id)?;
        let btf_rs::Type::Func(function) = btf.resolve_type_by_id(first).ok()? else { return None };
        btf.resolve_name(&function).ok().filter(|n| n.starts_with(&short))
    };
    whole().unwrap_or(short)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A refusal of bpf(2); the missing privilege is named.
pub(super) fn refusal(op: &'static str, errno: Errno) -> Error {
    let error = Error::errno(op, errno);
    match errno {
        Errno::EPERM => error.hint(
            "eBPF needs CAP_BPF and CAP_NET_ADMIN (run as root, or: setcap cap_bpf,cap_net_admin,cap_sys_admin+ep)",
        ),
        Errno::ENOSYS => error.because("this kernel is built without bpf(2)"),
        _ => error,
    }
}
