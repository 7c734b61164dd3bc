//! Time slices of a thread that somebody waits for.
//!
//! A thread that wakes waits until whoever runs on its processor has had a slice, some milliseconds, even while another
//! processor idles. One that asked for shorter slices than those goes first, and for no longer than such a slice
//! (`sched_setattr(2)`; `PREEMPT_SHORT` of kernel/sched/fair.c, Linux 6.12).

/// Nanoseconds: the shortest that the kernel gives.
const SHORT: u64 = 100_000;

/// Asks for short slices for the calling thread; what it starts gets usual ones. Older kernels, and threads under another
/// policy, go on as they are.
pub fn shorten() {
    let size = size_of::<libc::sched_attr>() as u32;
    let mut attributes = libc::sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: sched_getattr(2) on the calling thread writes at most `size` bytes.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if got != 0 || attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return;
    }
    attributes.size = size;
    attributes.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    attributes.sched_runtime = SHORT;
    // SAFETY: sched_setattr(2) on the calling thread reads `size` bytes.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}
