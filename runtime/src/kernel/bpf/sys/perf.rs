//! perf_event_open(2): events whose samples carry bytes that programs, or the kernel's own tracepoints, wrote.

use aya_obj::generated::{
    perf_event_attr, perf_event_sample_format as sample, perf_sw_ids, perf_type_id,
};

use super::*;

/// What is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PerfEvent {
    /// What programs send with `bpf_perf_event_output`: samples are the bytes alone.
    Output,
    /// A tracepoint, by the number in its `id` file: samples are thread, time, processor and the bytes.
    Tracepoint(u64),
}

/// `PERF_FORMAT_LOST`, Linux 6.0: reading the descriptor tells how many samples found no room.
const FORMAT_LOST: u64 = 1 << 4;

/// An event of every process on one processor; it wakes whoever waits at every sample.
pub fn perf_event_open(event: PerfEvent, cpu: u32) -> SysResult<OwnedFd> {
    // SAFETY: perf_event_attr is plain integers; all-zero is what the kernel asks of unused bytes.
    let mut a: perf_event_attr = unsafe { zeroed() };
    a.size = size_of::<perf_event_attr>() as u32;
    a.read_format = FORMAT_LOST;
    a.__bindgen_anon_1.sample_period = 1;
    a.__bindgen_anon_2.wakeup_events = 1;
    let raw = sample::PERF_SAMPLE_RAW as u64;
    match event {
        PerfEvent::Output => {
            a.type_ = perf_type_id::PERF_TYPE_SOFTWARE as u32;
            a.config = perf_sw_ids::PERF_COUNT_SW_BPF_OUTPUT as u64;
            a.sample_type = raw;
        }
        PerfEvent::Tracepoint(id) => {
            a.type_ = perf_type_id::PERF_TYPE_TRACEPOINT as u32;
            a.config = id;
            a.sample_type = raw
                | sample::PERF_SAMPLE_TID as u64
                | sample::PERF_SAMPLE_TIME as u64
                | sample::PERF_SAMPLE_CPU as u64;
        }
    }
    open(&a, cpu)
}

fn open(a: &perf_event_attr, cpu: u32) -> SysResult<OwnedFd> {
    let every_process: libc::pid_t = -1;
    let no_group: libc::c_int = -1;
    // SAFETY: the attribute is whole and lives for the length of the call; the result is a descriptor of ours.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_perf_event_open,
            a as *const perf_event_attr,
            every_process,
            cpu as libc::c_int,
            no_group,
            aya_obj::generated::PERF_FLAG_FD_CLOEXEC as libc::c_ulong,
        );
        match fd {
            0.. => Ok(OwnedFd::from_raw_fd(fd as i32)),
            _ => Err(Errno::last()),
        }
    }
}

/// Samples that found no room in the buffer, since it was opened.
pub fn perf_lost(fd: BorrowedFd<'_>) -> SysResult<u64> {
    // The count of events, then the samples lost.
    let mut words = [0u8; 16];
    nix::unistd::read(fd, &mut words)?;
    Ok(words[8..].try_into().map_or(0, u64::from_ne_bytes))
}

/// What a program is run at through a perf event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramEvent<'a> {
    /// By the number in its `id` file.
    Tracepoint(u64),
    /// A kernel function: the number in `/sys/bus/event_source/devices/kprobe/type`, its name, bytes from its start, and
    /// whether at its return.
    Kprobe { pmu: u32, function: &'a CStr, offset: u64, on_return: bool },
}

/// An event without a buffer, which programs can be linked to; they run on every processor.
pub fn program_event_open(event: ProgramEvent<'_>) -> SysResult<OwnedFd> {
    // SAFETY: perf_event_attr is plain integers; all-zero is what the kernel asks of unused bytes.
    let mut a: perf_event_attr = unsafe { zeroed() };
    a.size = size_of::<perf_event_attr>() as u32;
    match event {
        ProgramEvent::Tracepoint(id) => {
            a.type_ = perf_type_id::PERF_TYPE_TRACEPOINT as u32;
            a.config = id;
        }
        ProgramEvent::Kprobe { pmu, function, offset, on_return } => {
            a.type_ = pmu;
            // Bit 0 of the format `retprobe`.
            a.config = on_return.into();
            a.__bindgen_anon_3.kprobe_func = function.as_ptr() as u64;
            a.__bindgen_anon_4.probe_offset = offset;
        }
    }
    open(&a, 0)
}
