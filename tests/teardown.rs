//! A signal ends an instance: everything it made is gone, quickly, and nothing else.

use std::io::Read;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

#[path = "room/place.rs"]
mod place;

/// Starts a chunk and waits until it prints "ready".
fn start(chunk: &str) -> Child {
    place::start(&["-e", chunk])
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.as_mut().expect("it is piped").read_to_string(&mut text).expect("it is text");
    text
}

/// Sends SIGINT; how long the end took, what was said, and the exit status.
fn interrupt(mut child: Child) -> (Duration, String, Option<i32>) {
    let start = Instant::now();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("it is ours");
    let text = said(&mut child);
    let status = child.wait().expect("it ends");
    (start.elapsed(), text, status.code())
}

fn namespaces(prefix: &str) -> Vec<String> {
    let names = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

#[test]
fn a_hundred_links_are_gone_within_two_seconds() {
    let name = format!("cnft-bulk-{}", std::process::id());
    let ip = |args: &[&str]| Command::new("ip").args(args).output().expect("ip runs");
    ip(&["netns", "add", &name]);
    ip(&["-n", &name, "link", "add", "theirs0", "type", "veth", "peer", "theirs1"]);
    // In a namespace that is not ours each link has to be deleted itself.
    let child = start(&format!(
        "local ns = netns.get({name:?})
         for i = 1, 50 do
           link.veth{{name = 'v' .. i, netns = ns, address = {{'10.0.' .. i .. '.1/24', 'fd00:' .. i .. '::1/64'}},
                     peer = {{name = 'w' .. i, netns = ns}}}}
         end
         print('ready')"
    ));
    let (took, text, status) = interrupt(child);
    let left = String::from_utf8(ip(&["-n", &name, "-br", "link"]).stdout).expect("it is text");
    ip(&["netns", "delete", &name]);
    assert_eq!(status, Some(130), "{text}");
    assert!(text.contains("removed 100 links"), "{text}");
    assert_eq!(left.lines().count(), 3, "{left}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn a_hundred_namespaces_are_gone_within_two_seconds() {
    let prefix = format!("cnft-many-{}-", std::process::id());
    let child = start(&format!(
        "local hub = netns.new({prefix:?} .. 'hub')
         for i = 1, 100 do
           local ns = netns.new({prefix:?} .. i)
           link.veth{{name = 'eth0', netns = ns, address = '10.0.0.' .. i .. '/24', peer = {{name = 'p' .. i, netns = hub}}}}
           ns:route{{dst = 'default', dev = 'eth0'}}
           ns:sysctl('net.ipv4.ip_forward', 1)
         end
         print('ready')"
    ));
    assert_eq!(namespaces(&prefix).len(), 101);
    let (took, text, status) = interrupt(child);
    assert_eq!(status, Some(130), "{text}");
    assert_eq!(namespaces(&prefix), Vec::<String>::new());
    assert!(text.contains("200 links, 101 netns"), "{text}");
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn programs_and_servers_end_with_their_instance() {
    let name = format!("cnft-run-{}", std::process::id());
    let child = start(&format!(
        "local ns = netns.new({name:?})
         ns:spawn('sleep 1000 & sleep 1000 & wait')
         probe.serve(ns, {{tcp = 80}})
         event.on('link', {{netns = ns}}, function() end)
         print('ready')"
    ));
    let pids = |name: &str| {
        let out = Command::new("ip").args(["netns", "pids", name]).output().expect("ip runs");
        String::from_utf8(out.stdout).expect("it is text")
    };
    let running: Vec<String> = pids(&name).split_whitespace().map(str::to_owned).collect();
    let (_, text, status) = interrupt(child);
    assert_eq!(status, Some(130), "{text}");
    assert!(!running.is_empty());
    // Killed, but a busy machine may not have buried the children of children yet.
    let deadline = std::time::Instant::now() + Duration::from_secs(2);
    for pid in running {
        loop {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "still running: {stat}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    assert_eq!(namespaces(&name), Vec::<String>::new());
}

/// How many processes run `sleep` for just that long.
fn sleepers(seconds: &str) -> usize {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let asleep = |line: Vec<u8>| line == format!("sleep\0{seconds}\0").into_bytes();
    processes.filter(|p| std::fs::read(p.path().join("cmdline")).is_ok_and(asleep)).count()
}

#[test]
fn commands_end_with_the_script_and_so_does_what_they_started() {
    // A script that waits, and one that hangs where no interrupt reaches it.
    let endings = ["task.sleep(100)", "local _ = ('a'):rep(1 << 16):find(('a*'):rep(30) .. 'b')"];
    for (number, ending) in endings.into_iter().enumerate() {
        let seconds = format!("{}.{number}", 100_000 + std::process::id());
        let child = start(&format!(
            "pipe = io.popen('sleep {seconds} | cat; true')
            task.spawn(os.execute, '(sleep {seconds}; true); true')
            task.spawn(function() netns.host():exec('sleep {seconds}; true') end)
            task.sleep(0.1)
            print('ready') io.stdout:flush() {ending}"
        ));
        assert_eq!(sleepers(&seconds), 3, "{ending}");
        let (took, text, status) = interrupt(child);
        assert_eq!(status, Some(130), "{text}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        let deadline = Instant::now() + Duration::from_secs(2);
        while sleepers(&seconds) > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(sleepers(&seconds), 0, "{ending}: {text}");
    }
}
