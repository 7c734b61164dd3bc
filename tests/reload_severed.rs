//! What somebody else takes away from under a running instance: attachments, pins, the bpffs, links and namespaces in the middle
//! of a load. The next reload mends it and says so, or is refused and leaves what runs.

mod room;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use room::*;

/// A program on tcx (or clsact), one on XDP with the array of its stages, and a router.
const HOOKS: &str = "
cnf.mirror.to { from = v1, direction = 'ingress', to = v2 }
cnf.filter.xdp { link = v1, deny = '10.1.0.0/16' }
cnf.policy.router { name = 'edge', attach = { { v1, 'egress' } }, default = { action = 'pass' } }
";

fn hooks() -> String {
    format!("{LINKS}{HOOKS}")
}

impl Room {
    /// The instance's name, which no other test has.
    fn name(&self) -> String {
        format!("severed-{}", self.prefix.trim_end_matches('-'))
    }

    fn pins(&self) -> Vec<PathBuf> {
        let begins = format!("{}%", self.name());
        let all = std::fs::read_dir("/sys/fs/bpf/cnfscript").into_iter().flatten().flatten();
        let ours = all.filter(|d| d.file_name().to_string_lossy().starts_with(&begins));
        let files = ours.flat_map(|d| std::fs::read_dir(d.path()).expect("its own").flatten());
        let mut paths: Vec<PathBuf> = files.map(|file| file.path()).collect();
        paths.sort();
        paths
    }

    /// How many programs stand on v1's hooks.
    fn programs(&self) -> usize {
        let chunk = "local v = netns.get('PREFIXa'):link('v1') local hooks = bpf.has('tcx').available and tcx or tc
            print(#xdp.query(v).programs + #hooks.query(v, 'ingress').programs + #hooks.query(v, 'egress').programs)";
        let said = self.run(&["-e", &chunk.replace("PREFIX", &self.prefix)]);
        said.out.trim().parse().unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    fn has_tcx(&self) -> bool {
        self.run(&["-e", "print(bpf.has('tcx').available)"]).out.trim() == "true"
    }
}

fn detach(pin: &std::path::Path) {
    let mut bpftool = Command::new("bpftool");
    let said = bpftool.args(["link", "detach", "pinned"]).arg(pin).output().expect("bpftool");
    assert!(said.status.success(), "{said:?}");
}

#[test]
fn what_was_detached_is_attached_again() {
    let room = Room::new();
    room.up(&room.name(), &hooks());
    assert_eq!(room.programs(), 3);
    let links = room.pins().into_iter().filter(|pin| !pin.to_string_lossy().contains("/stages-"));
    let links: Vec<PathBuf> = links.collect();
    assert_eq!(links.len(), if room.has_tcx() { 3 } else { 1 });
    links.iter().for_each(|pin| detach(pin));
    assert_eq!(room.programs(), 3 - links.len());
    let mended = room.difference(&room.name());
    assert_eq!(mended["changed"].as_array().map(Vec::len), Some(links.len()), "{mended}");
    let log = room.log(&room.name());
    assert_eq!(log.matches("by someone else; it is attached again").count(), links.len(), "{log}");
    assert_eq!(room.programs(), 3);
    assert_eq!(room.difference(&room.name())["changed"], serde_json::json!([]));
    // It is pinned again, too.
    room.kill(&room.name());
    assert_eq!(room.programs(), 3);
}

#[test]
fn what_was_unpinned_is_pinned_again() {
    let room = Room::new();
    room.up(&room.name(), &hooks());
    let pins = room.pins();
    assert_eq!(pins.len(), if room.has_tcx() { 4 } else { 2 }, "{pins:?}");
    pins.iter().for_each(|pin| std::fs::remove_file(pin).expect("it is there"));
    // Whether or not a load has failed since.
    room.reload(&room.name(), &format!("{} error('late')", hooks())).expect(1, "late");
    room.script(&room.name(), &hooks());
    room.difference(&room.name());
    let log = room.log(&room.name());
    assert_eq!(log.matches("by someone else; it is pinned again").count(), pins.len(), "{log}");
    assert_eq!(room.pins(), pins);
    assert_eq!(room.difference(&room.name())["changed"], serde_json::json!([]));
    room.kill(&room.name());
    assert_eq!(room.programs(), 3, "they outlive the process");
}

/// A load that waits in the middle: what is deleted then was there when the script named it.
const WAITS: &str = "
local a, b = cnf.netns.new('PREFIXa'), cnf.netns.new('PREFIXb')
local v = cnf.link.veth { name = 'v0', netns = a, address = '10.0.0.1/24',
  peer = { name = 'w0', netns = b, address = '10.0.0.2/24' } }
meanwhile()
a:route { dst = '10.1.0.0/16', via = '10.0.0.2' }
a:sysctl('net.ipv4.ip_forward', 1)
cnf.filter.xdp { link = v, deny = 'DENIED' }
";

#[test]
fn a_link_or_a_namespace_that_goes_in_the_middle_of_a_load() {
    let cases: [(&[&str], Option<&str>, &str); 3] = [
        (
            &["-n", "PREFIXa", "link", "delete", "v0"],
            Some("the device v0 is gone (ENODEV)"),
            "link v0",
        ),
        (&["netns", "delete", "PREFIXa"], Some("the namespace was deleted (ENODEV)"), "netns"),
        // Nothing of this load needs it, and its links live on until the next.
        (&["netns", "delete", "PREFIXb"], None, "netns"),
    ];
    for (words, refused, mended) in cases {
        let room = Room::new();
        let text = WAITS.replace("DENIED", "10.1.0.0/16").replace("meanwhile()", "");
        room.up(&room.name(), &text);
        let text = WAITS.replace("DENIED", "10.2.0.0/16");
        let said = room.reload_with(&room.name(), &text, || {
            let words = words.iter().map(|w| w.replace("PREFIX", &room.prefix));
            assert!(Command::new("ip").args(words).status().expect("ip").success());
        });
        match refused {
            Some(text) => said.expect(1, text),
            None => said.expect(0, "reload 2: "),
        }
        room.run(&["reload", &room.name()]).expect(0, "link v0");
        let log = room.log(&room.name());
        assert!(log.contains(&format!("warning: {mended}")), "{log}");
        assert!(log.contains("was deleted by someone else; it is made again"), "{log}");
        let wanted = "10.1.0.0/16 via 10.0.0.2 dev v0";
        let route = ["-n", &format!("{}a", room.prefix), "route"].map(str::to_owned);
        let shown = Command::new("ip").args(&route).output().expect("ip").stdout;
        assert!(String::from_utf8_lossy(&shown).contains(wanted), "{words:?}");
        let same = room.difference(&room.name());
        assert_eq!([&same["created"], &same["changed"]], [&serde_json::json!([]); 2], "{same}");
    }
}

/// One of each of what others can delete.
const NET: &str = "
local a = cnf.netns.new('PREFIXa')
local v = cnf.link.veth { name = 'v0', netns = a, address = { '10.0.0.1/24', 'fd00::1/64' },
  peer = { name = 'w0', netns = a } }
v:add_address('10.0.7.1/24')
v:add_address('fd07::1/64')
a:route { dst = '10.1.0.0/16', dev = v }
a:route { dst = '10.2.0.0/16', via = '10.1.0.9' }
a:route { dst = 'fd10::/64', via = 'fd00::2' }
a:route { dst = '10.3.0.0/16', nexthops = { { via = '10.0.0.2' }, { via = '10.0.0.3' } }, table = 100 }
a:route { dst = '10.4.0.0/16', type = 'blackhole' }
a:rule { from = '10.5.0.0/16', table = 100, priority = 500 }
a:rule { fwmark = 7, type = 'unreachable', family = 'inet6' }
a:neigh { dst = '10.0.0.9', lladdr = '02:00:00:00:00:09', dev = v }
a:neigh { dst = '10.0.0.10', proxy = true, dev = v }
";
const DELETE: [&str; 11] = [
    "addr del 10.0.0.1/24 dev v0",
    "addr del fd00::1/64 dev v0",
    "addr del 10.0.7.1/24 dev v0",
    "addr del fd07::1/64 dev v0",
    "route del 10.2.0.0/16",
    "route del 10.1.0.0/16",
    "-6 route del fd10::/64",
    "route del 10.3.0.0/16 table 100",
    "route del blackhole 10.4.0.0/16",
    "rule del priority 500",
    "neigh del 10.0.0.9 dev v0",
];

#[test]
fn what_others_delete_is_made_again() {
    let room = Room::new();
    room.up("net", NET);
    let see = || {
        let words = [
            "-4 addr show v0",
            "-6 addr show v0 scope global",
            "route show table all",
            "rule",
            "-6 rule",
            "neigh show nud permanent",
        ];
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(|l| l.trim().to_owned()).collect();
            lines.sort();
            lines
        };
        words.map(|words| sorted(room.ip("a", words)))
    };
    let before = see();
    let mended = || room.log("net").matches("by someone else; it is made again").count();
    // The last addresses take routes with them.
    for words in DELETE {
        room.ip("a", words);
        assert_ne!(see(), before, "{words}");
        let count = mended();
        room.run(&["reload", "net"]).expect(0, "kept 14");
        eventually(|| see() == before);
        assert!(mended() > count, "{words}");
    }
    // All at once; and when nothing is missing nothing is said.
    DELETE.iter().for_each(|words| drop(room.ip("a", words)));
    room.run(&["reload", "net"]).expect(0, "kept 14");
    eventually(|| see() == before);
    let count = mended();
    for _ in 0..2 {
        room.run(&["reload", "net"]).expect(0, "kept 14");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!((mended(), see()), (count, before.clone()), "{}", room.log("net"));
    // A load that needs it finds it.
    room.ip("a", "route del 10.1.0.0/16");
    let more = format!("{NET} a:route {{ dst = '10.6.0.0/16', via = '10.1.0.6' }}");
    room.reload("net", &more).expect(0, "created 1, kept 14");
    assert!(room.ip("a", "route").contains("10.1.0.0/16 dev v0"));
    // One that is refused mends, too.
    room.ip("a", "rule del priority 500");
    room.reload("net", &format!("{NET} error('no')")).expect(1, "no");
    eventually(|| room.ip("a", "rule").contains("500:"));
}

#[test]
fn what_the_script_itself_takes_away_stays_away() {
    let calls = [
        "v:delete_address('fd00::1/64')",
        "v:down()",
        "v:set { mtu = 1200 }",
        "a:sysctl('net.ipv6.conf.v0.disable_ipv6', 1)",
    ];
    for call in calls {
        let room = Room::new();
        room.up("net", &format!("{NET}{call}"));
        let see = || {
            ["addr show v0 scope global", "route show table all", "-6 route"]
                .map(|words| room.ip("a", words))
        };
        let before = see();
        for _ in 0..2 {
            room.run(&["reload", "net"]).expect(0, ": kept ");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        assert_eq!(see(), before, "{call}");
        assert!(!room.log("net").contains("someone else"), "{call}: {}", room.log("net"));
    }
}

/// A mount namespace of its own, as long as this lives.
struct Mounts(std::process::Child);

impl Mounts {
    fn new() -> Mounts {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sleep", BOUND]);
        let mounts = Mounts(unshare.spawn().expect("unshare"));
        let own = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let pid = mounts.0.id().to_string();
        eventually(|| own(&pid).is_some() && own(&pid) != own("self"));
        mounts
    }

    /// A command in it.
    fn enter(&self, command: &Command) -> Command {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--mount=/proc/{}/ns/mnt", self.0.id()));
        nsenter.arg(command.get_program()).args(command.get_args());
        nsenter.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
        nsenter.stdin(Stdio::null());
        nsenter
    }

    fn run(&self, room: &Room, words: &[&str]) -> Said {
        self.enter(&room.command(words)).output().expect("nsenter").into()
    }

    fn shell(&self, line: &str) -> String {
        let mut sh = Command::new("sh");
        let output = self.enter(sh.args(["-c", line])).output().expect("nsenter");
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_bpffs_that_was_unmounted_is_mounted_again() {
    let room = Room::new();
    let (mounts, name) = (Mounts::new(), room.name());
    // One of its own, so that nothing is left when the mounts are gone.
    mounts.shell("mount -t bpf bpf /sys/fs/bpf");
    let script = room.script(&name, &hooks());
    mounts.run(&room, &["up", script.to_str().expect("text")]).expect(0, "is up");
    let count = || mounts.shell("find /sys/fs/bpf/cnfscript -type f 2>/dev/null | wc -l; true");
    let pins = count();
    assert_ne!(pins.trim(), "0");
    // All of them: one of the machine's may be below.
    mounts.shell("while umount /sys/fs/bpf 2>/dev/null; do :; done");
    let said = mounts.run(&room, &["reload", &name]);
    said.expect(0, "reload 2: ");
    assert_eq!(count(), pins);
    let log = room.log(&room.name());
    assert!(log.contains("by someone else; it is pinned again"), "{log}");
    mounts.run(&room, &["reload", &name]).expect(0, "reload 3: kept ");
    mounts.run(&room, &["down", &name]).expect(0, "is down");
    assert_eq!(count().trim(), "0");
}
