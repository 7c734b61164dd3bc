//! The share of a processor that a thread gets which somebody waits for.
//!
//! A thread that wakes waits until whoever runs on its processor has had a slice, some milliseconds, even while another
//! processor idles. One that asked for shorter slices than those goes first, and for no longer than such a slice
//! (`sched_setattr(2)`; `PREEMPT_SHORT` of kernel/sched/fair.c, Linux 6.12). After that they take turns, each with half of the
//! processor, until the kernel's next look at who could run elsewhere: a lower nice value makes that a tenth and nine.

/// Nanoseconds: the shortest that the kernel gives.
const SHORT: u64 = 100_000;
/// `sched(7)`: ten times the weight of a thread that asked for nothing.
const URGENT: i32 = -10;

/// Asks for short slices for the calling thread; what it starts gets usual ones. Older kernels, and threads under another
/// policy, go on as they are.
pub fn shorten() {
    if let Some(mut attributes) = attributes() {
        attributes.sched_runtime = SHORT;
        set(&attributes);
    }
}

/// As long as this lives, the calling thread goes before others; what it starts does not. A process that was given a nice value
/// keeps that, and without CAP_SYS_NICE all stays as it is.
pub struct Hurry {
    before: Option<libc::sched_attr>,
}

impl Hurry {
    pub fn begin() -> Hurry {
        let before = attributes().filter(|before| before.sched_nice == 0);
        if let Some(before) = &before {
            set(&libc::sched_attr { sched_nice: URGENT, ..*before });
        }
        Hurry { before }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        self.before.iter().for_each(set);
    }
}

/// Of the calling thread, if it is scheduled as usual; what it starts inherits none of it.
fn attributes() -> Option<libc::sched_attr> {
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
        return None;
    }
    attributes.size = size;
    attributes.sched_flags |= libc::SCHED_FLAG_RESET_ON_FORK as u64;
    Some(attributes)
}

fn set(attributes: &libc::sched_attr) {
    // SAFETY: sched_setattr(2) on the calling thread reads `size` bytes.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        attributes().expect("it is scheduled as usual").sched_nice
    }

    #[test]
    fn hurry_ends_and_is_not_inherited() {
        let child = |hurry: Option<Hurry>| {
            let inside = nice();
            let inherited = std::thread::spawn(nice).join().expect("it ends");
            drop(hurry);
            (inside, inherited, nice())
        };
        let test = std::thread::spawn(move || {
            shorten();
            (nice(), child(None), child(Some(Hurry::begin())))
        });
        let (own, usual, hurried) = test.join().expect("it ends");
        assert_eq!(usual, (own, own, own));
        assert_eq!(hurried, (if own == 0 { URGENT } else { own }, own, own));
    }
}
