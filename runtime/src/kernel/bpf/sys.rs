//! bpf(2) itself: one thin function per command, zeroed attributes, retries, errno back. No policy.
//!
//! Everything above speaks of maps, programs and hooks; only this file knows `union bpf_attr`.
//! (`bpf(2)`, `include/uapi/linux/bpf.h`, `kernel/bpf/syscall.c`.)

use std::ffi::CStr;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn};
pub use aya_obj::generated::{bpf_btf_info, bpf_link_info, bpf_map_info, bpf_prog_info};
use nix::errno::Errno;

mod link;
mod map;
mod memory;
mod object;
mod perf;
mod program;

pub use link::*;
pub use map::*;
pub use memory::*;
pub use object::*;
pub use perf::*;
pub use program::*;

/// An errno and nothing else: the callers know the operation and the subject.
pub type SysResult<T> = std::result::Result<T, Errno>;

/// `flags` of map updates (`BPF_ANY`, `BPF_NOEXIST`, `BPF_EXIST`).
pub const ANY: u64 = 0;
pub const NOEXIST: u64 = 1;
pub const EXIST: u64 = 2;

pub const F_BEFORE: u32 = 1 << 3;
pub const F_AFTER: u32 = 1 << 4;
pub const F_ID: u32 = 1 << 5;
pub const F_LINK: u32 = 1 << 13;

/// Program flags.
pub const F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// Map flags.
pub const F_NO_PREALLOC: u32 = 1;
pub const F_RDONLY_PROG: u32 = 1 << 7;
pub const F_MMAPABLE: u32 = 1 << 10;

/// Names of programs and maps are 15 bytes and a NUL (`BPF_OBJ_NAME_LEN`).
pub const NAME_LEN: usize = 15;

/// `ENOTSUPP` of `include/linux/errno.h`.
const ENOTSUPP: i32 = 524;

fn attr() -> bpf_attr {
    // SAFETY: bpf_attr is a union of plain integers; all-zero is what the kernel asks of unused bytes.
    unsafe { zeroed() }
}

fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> SysResult<i64> {
    call(cmd, attr)
}

/// The system call, again while a signal (EINTR) or a busy verifier (EAGAIN, at most a few times) interrupts. `attr` is
/// `union bpf_attr`, or the beginning of it: the kernel takes the rest as zero.
fn call<A>(cmd: bpf_cmd, attr: &mut A) -> SysResult<i64> {
    let mut busy = 0;
    loop {
        // SAFETY: the attribute is plain integers, zeroed beyond what the caller set, its pointers are to memory the
        // caller holds for the length of the call.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, cmd as libc::c_long, &raw mut *attr, size_of::<A>())
        };
        if result >= 0 {
            return Ok(result);
        }
        match Errno::last_raw() {
            libc::EINTR => {}
            libc::EAGAIN if cmd == bpf_cmd::BPF_PROG_LOAD && busy < 5 => busy += 1,
            // The kernel's internal "not supported" leaks out of map operations and has no libc name.
            ENOTSUPP => return Err(Errno::EOPNOTSUPP),
            raw => return Err(Errno::from_raw(raw)),
        }
    }
}

fn unit(cmd: bpf_cmd, attr: &mut bpf_attr) -> SysResult<()> {
    bpf(cmd, attr).map(drop)
}

fn descriptor(cmd: bpf_cmd, attr: &mut bpf_attr) -> SysResult<OwnedFd> {
    // SAFETY: these commands return a new descriptor that is ours (and is close-on-exec, always).
    bpf(cmd, attr).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd() as u32
}

/// A name as the kernel takes it: cut to 15 bytes, anything but `[A-Za-z0-9_.]` replaced.
fn object_name(name: &str) -> [libc::c_char; 16] {
    let mut out = [0; 16];
    for (slot, byte) in out[..NAME_LEN].iter_mut().zip(name.bytes()) {
        let valid = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        *slot = if valid { byte } else { b'_' } as libc::c_char;
    }
    out
}

/// The text of a fixed-size C name.
pub fn name_of(name: &[libc::c_char]) -> String {
    let bytes: Vec<u8> = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
