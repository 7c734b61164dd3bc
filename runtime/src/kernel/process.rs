//! Child processes inside a namespace, with what `ip netns exec` gives them: /sys of that namespace, /etc/netns files.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::netns::NetnsFd;
use super::processes;
use crate::{Error, Result};

/// Everything the child does before it becomes the program. Prepared in the parent, because between fork and exec only
/// system calls are allowed.
struct Plan {
    /// None for the namespace that this process is in: then its mounts are right as they are, and `ip netns add` in the child
    /// is seen by all.
    netns: Option<NetnsFd>,
    parent: i32,
    /// Mount points below /sys that the new sysfs would hide (bpffs, cgroups), parents first.
    keep: Vec<CString>,
    /// Files of /etc/netns/NAME and the file of /etc that each stands for.
    etc: Vec<(CString, CString)>,
}

/// A command that will run `program` inside `netns`; `name` selects /etc/netns/NAME.
///
/// It gets its own mount namespace (not in the host's namespace) and process group, and is killed when the thread that starts
/// it ends: start it from a thread that lives as long as the process. `tokio::process::Command::from` takes it as it is.
///
/// # Errors
/// EINVAL for a name with a zero byte. Starting it: EPERM without CAP_SYS_ADMIN, ENOENT when there is no such program.
pub fn command(netns: &NetnsFd, name: Option<&str>, program: impl AsRef<OsStr>) -> Result<Command> {
    let plan = Plan {
        netns: (!netns.same(NetnsFd::host()?)).then(|| netns.clone()),
        parent: std::process::id() as i32,
        keep: mounts_below_sys()?,
        etc: match name {
            Some(name) => etc_files(name)?,
            None => Vec::new(),
        },
    };
    let mut command = Command::new(program);
    command.process_group(0);
    // SAFETY: `enter` makes system calls only, on memory that was allocated before the fork.
    unsafe { command.pre_exec(move || enter(&plan)) };
    Ok(command)
}

/// Sends `signal` to the whole process group that a child of [`command`] leads; one that has ended is no error.
///
/// # Errors
/// EPERM when a program in it changed its user.
pub fn kill_group(pid: u32, signal: Signal) -> Result<()> {
    match killpg(Pid::from_raw(pid as i32), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(e) => Err(Error::errno("process.kill", e).subject(pid.to_string())),
    }
}

/// When the process started, in clock ticks after boot; `None` when there is none.
pub fn started(pid: u32) -> Option<u64> {
    processes::one(pid).map(|process| process.started)
}

/// How far the end of a child reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It leads a process group: all that is in it.
    Group,
    /// It shares ours, as a terminal wants it: those that descend from it.
    Tree,
}

/// Children that are to end with this process, also when that ends without undoing anything else.
static ENLISTED: Mutex<BTreeMap<u32, Reach>> = Mutex::new(BTreeMap::new());

/// The child `pid` is to end with this process, until it is dismissed.
pub fn enlist(pid: u32, reach: Reach) {
    ENLISTED.lock().unwrap_or_else(PoisonError::into_inner).insert(pid, reach);
}

/// The child has ended, or is about to be.
pub fn dismiss(pid: u32) {
    ENLISTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// Ends every child that is enlisted.
pub fn end_enlisted() {
    let all = std::mem::take(&mut *ENLISTED.lock().unwrap_or_else(PoisonError::into_inner));
    for (pid, reach) in all {
        end(pid, reach);
    }
}

/// Kills the child `pid` and what it has started; what of it is gone already is no error.
pub fn end(pid: u32, reach: Reach) {
    match reach {
        Reach::Group => drop(kill_group(pid, Signal::SIGKILL)),
        Reach::Tree => {
            for one in std::iter::once(pid).chain(processes::descendants(pid)) {
                let _ = kill(Pid::from_raw(one as i32), Signal::SIGKILL);
            }
        }
    }
}

/// Kills the group that `pid` leads, and waits until all in it have ended: what they held is free then. Not longer than a
/// moment, for a program can be stuck in the kernel.
///
/// # Errors
/// As [`kill_group`].
pub fn end_group(pid: u32) -> Result<()> {
    kill_group(pid, Signal::SIGKILL)?;
    wait_for_group(pid);
    Ok(())
}

/// Until nobody in the group runs any more, at most a fifth of a second. Zombies have ended: their status stays for whoever
/// waits for it in earnest.
fn wait_for_group(pid: u32) {
    const STEP: std::time::Duration = std::time::Duration::from_millis(1);
    const STEPS: usize = 200;
    for _ in 0..STEPS {
        if alive_in(pid).next().is_none() {
            break;
        }
        std::thread::sleep(STEP);
    }
}

fn alive_in(group: u32) -> impl Iterator<Item = processes::Entry> {
    processes::all().into_iter().filter(move |p| p.group == group && !p.ended)
}

/// Kills what is left of the group that `pid` led, if somebody in it has `mark`, a `NAME=VALUE`, in its environment
/// (`proc_pid_environ(5)`), and waits a moment for its end.
///
/// # Errors
/// As [`kill_group`].
pub fn end_marked_group(pid: u32, mark: &str) -> Result<()> {
    match alive_in(pid).any(|process| is_marked(process.pid, mark)) {
        true => end_group(pid),
        false => Ok(()),
    }
}

/// As [`end_marked_group`], for every group that has somebody with that mark.
///
/// # Errors
/// As [`kill_group`].
pub fn end_marked(mark: &str) -> Result<()> {
    let marked = processes::all().into_iter().filter(|p| !p.ended && is_marked(p.pid, mark));
    let groups: std::collections::BTreeSet<u32> = marked.map(|process| process.group).collect();
    groups.into_iter().try_for_each(end_group)
}

fn is_marked(pid: u32, mark: &str) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|one| one == mark.as_bytes())
}

fn c_string(path: &[u8]) -> Result<CString> {
    CString::new(path).map_err(|_| Error::invalid("netns.exec", "a path contains a zero byte"))
}

/// The mount points directly below /sys, one per subtree: each is taken along with what is mounted in it.
fn mounts_below_sys() -> Result<Vec<CString>> {
    // Unreadable, or no proc: then there is nothing to keep.
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<String> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with("/sys/") && !point.contains('\\'))
        .map(str::to_owned)
        .collect();
    points.sort();
    points.dedup_by(|point, before| Path::new(point).starts_with(before));
    points.iter().map(|point| c_string(point.as_bytes())).collect()
}

fn etc_files(name: &str) -> Result<Vec<(CString, CString)>> {
    let Ok(entries) = std::fs::read_dir(Path::new("/etc/netns").join(name)) else {
        return Ok(Vec::new());
    };
    entries
        .flatten()
        .map(|entry| {
            let target = Path::new("/etc").join(entry.file_name());
            let from = c_string(entry.path().as_os_str().as_bytes())?;
            Ok((from, c_string(target.as_os_str().as_bytes())?))
        })
        .collect()
}

/// In the child, between fork and exec.
fn enter(plan: &Plan) -> io::Result<()> {
    // Before anything can fail slowly: if the parent is gone already, nobody would send the signal.
    // SAFETY: prctl and getppid touch no memory.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid() != plan.parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    // A shell starts its background jobs with these ignored; the child is to be stopped by them all the same.
    for signal in [libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: SIG_DFL is a valid disposition of both.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let Some(netns) = &plan.netns else { return Ok(()) };
    // SAFETY: setns and unshare take numbers only.
    unsafe {
        check(libc::setns(netns.as_fd().as_raw_fd(), libc::CLONE_NEWNET))?;
        check(libc::unshare(libc::CLONE_NEWNS))?;
    }
    // Mounts of ours stay here; the host's still arrive.
    mount(None, c"/", None, libc::MS_SLAVE | libc::MS_REC)?;
    remount_sys(&plan.keep)?;
    for (file, target) in &plan.etc {
        // As iproute2: a file that /etc does not have is left out.
        let _ = mount(Some(file), target, None, libc::MS_BIND);
    }
    Ok(())
}

/// Mounts the sysfs of the namespace the child is in, with the mounts below /sys put back on it.
fn remount_sys(keep: &[CString]) -> io::Result<()> {
    /// More than any system has below /sys; an array, since the child cannot allocate.
    const MOST: usize = 32;
    const OPEN_TREE_CLONE: u32 = 1;
    const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
    let clone = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_RECURSIVE as u32;
    let mut trees = [-1; MOST];
    for (tree, point) in trees.iter_mut().zip(keep) {
        // SAFETY: the path is a C string that outlives the call.
        *tree =
            unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, point.as_ptr(), clone) };
    }
    // SAFETY: the path is a C string. It fails when nothing is mounted there, which is as well.
    unsafe { libc::umount2(c"/sys".as_ptr(), libc::MNT_DETACH) };
    mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), 0)?;
    for (tree, point) in trees.iter().zip(keep).filter(|(tree, _)| **tree >= 0) {
        // SAFETY: both paths are C strings, the descriptor is open. A mount point that the new sysfs lacks is left out.
        unsafe {
            libc::syscall(
                libc::SYS_move_mount,
                *tree,
                c"".as_ptr(),
                libc::AT_FDCWD,
                point.as_ptr(),
                MOVE_MOUNT_F_EMPTY_PATH,
            )
        };
    }
    Ok(())
}

fn mount(
    source: Option<&std::ffi::CStr>,
    target: &std::ffi::CStr,
    kind: Option<&std::ffi::CStr>,
    flags: libc::c_ulong,
) -> io::Result<()> {
    let pointer = |text: Option<&std::ffi::CStr>| text.unwrap_or(c"none").as_ptr();
    // SAFETY: all are C strings that outlive the call; no data is passed.
    check(unsafe {
        libc::mount(pointer(source), target.as_ptr(), pointer(kind), flags, std::ptr::null())
    })
}

fn check(outcome: i32) -> io::Result<()> {
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;
    use crate::kernel::link::tests::Scratch;

    #[test]
    fn a_child_sees_its_namespace() {
        let scratch = Scratch::new("exec");
        let run = |script: &str| {
            let mut sh = command(&scratch.0.fd, Some(&scratch.0.name), "sh").unwrap();
            let out = sh.args(["-c", script]).stderr(Stdio::inherit()).output().unwrap();
            String::from_utf8(out.stdout).unwrap()
        };
        assert_eq!(run("cd /sys/class/net && echo */"), "lo/\n");
        assert_eq!(run("ip netns identify $$").trim(), scratch.0.name);
        // The fifth field of stat is the process group.
        let ids = run("cut -d' ' -f5 /proc/$$/stat; echo $$");
        let ids: Vec<_> = ids.lines().collect();
        assert_eq!(ids[0], ids[1], "it leads its own group");
        let gone = command(&scratch.0.fd, None, "/no/such/program").unwrap().spawn().unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_group_dies_together() {
        let scratch = Scratch::new("kill");
        let mut child = command(&scratch.0.fd, None, "sh")
            .unwrap()
            .args(["-c", "sleep 100 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        io::BufRead::read_line(&mut out, &mut line).unwrap();
        kill_group(child.id(), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        // The pipe ends when the last process that holds it is gone.
        line.clear();
        assert_eq!(io::BufRead::read_line(&mut out, &mut line).unwrap(), 0);
        kill_group(child.id(), Signal::SIGKILL).unwrap();
    }
}
