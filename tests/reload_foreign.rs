//! Links and settings of others that a script changes: ports that were another's, settings of a link that is renamed. They
//! come back at the end, when a load fails, and after a crash.

mod room;

use std::process::Command;

use room::*;

/// A namespace of somebody else's with a port of `old`; deleted with the room.
fn foreign(room: &Room) {
    let netns = format!("{}f", room.prefix);
    let made = [
        "netns add NS",
        "-n NS link add old type bridge",
        "-n NS link add p0 type veth peer name p1",
        "-n NS link set p0 master old",
        "-n NS link set p0 up",
    ];
    for words in made {
        let words = words.replace("NS", &netns);
        let status = Command::new("ip").args(words.split(' ')).status();
        assert!(status.expect("ip").success(), "{words}");
    }
}

impl Room {
    /// What `p0`, or whatever it is called, is a port of.
    fn master(&self, port: &str) -> String {
        let path = format!("/sys/class/net/{port}/master");
        let netns = format!("{}f", self.prefix);
        let mut ip = Command::new("ip");
        let said = ip.args(["netns", "exec", &netns, "readlink", &path]).output().expect("ip");
        let path = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    fn sysctl(&self, key: &str) -> String {
        let netns = format!("{}f", self.prefix);
        let mut ip = Command::new("ip");
        let said = ip.args(["netns", "exec", &netns, "sysctl", "-n", key]).output().expect("ip");
        String::from_utf8_lossy(&said.stdout).trim().to_owned()
    }
}

const NONE: &str = "local f, own = cnf.netns.get('PREFIXf'), cnf.netns.new('PREFIXo')\n";
const BRIDGE: &str = "local f, own = cnf.netns.get('PREFIXf'), cnf.netns.new('PREFIXo')
local br = cnf.link.bridge { name = 'br1', netns = f, ports = { 'p0' } }\n";

#[test]
fn a_port_of_another_goes_back_to_it() {
    let room = Room::new();
    foreign(&room);
    room.up("it", NONE);
    room.reload("it", &format!("{BRIDGE} error('late')")).expect(1, "late");
    assert_eq!(room.master("p0"), "old", "nothing live changes before the commit");
    room.reload("it", BRIDGE).expect(0, "reload 2: ");
    assert_eq!(room.master("p0"), "br1");
    room.run(&["reload", "it"]).expect(0, "reload 3: kept 3 in");
    room.reload("it", NONE).expect(0, "reload 4: ");
    assert_eq!(room.master("p0"), "old");
    room.reload("it", BRIDGE).expect(0, "reload 5: ");
    room.run(&["down", "it"]).expect(0, "is down");
    assert_eq!(room.master("p0"), "old");
    // A process that is killed leaves it to clean.
    room.up("it", BRIDGE);
    room.kill("it");
    assert_eq!(room.master("p0"), "br1");
    room.run(&["clean", "it"]).expect(0, "");
    assert_eq!(room.master("p0"), "old");
    // A port that is refused leaves no bridge behind.
    let bad = "local f = cnf.netns.get('PREFIXf')
      print(pcall(cnf.link.bridge, { name = 'br2', netns = f, ports = { 'p0', 'lo' } }))
      print('left ' .. tostring(pcall(f.link, f, 'br2'))) cnf.exit()";
    let bad = bad.replace("PREFIX", &room.prefix).replacen("local f", "f", 1);
    room.run(&["-e", &format!("local {bad}")]).expect(0, "left false");
    assert_eq!(room.master("p0"), "old");
}

#[test]
fn a_setting_of_a_link_that_is_renamed_comes_back() {
    let room = Room::new();
    foreign(&room);
    let key = "net.ipv4.conf.NAME.rp_filter";
    let before = room.sysctl(&key.replace("NAME", "p0"));
    assert_ne!(before, "2");
    let text = format!("{NONE} f:sysctl('{}', 2)", key.replace("NAME", "p0"));
    room.up("it", &text);
    // Kernels before 6.2 rename no link that is up.
    room.ip("f", "link set p0 down");
    room.ip("f", "link set p0 name p7");
    assert_eq!(room.sysctl(&key.replace("NAME", "p7")), "2");
    room.run(&["down", "it"]).expect(0, "is down");
    assert_eq!(room.sysctl(&key.replace("NAME", "p7")), before);
    // By the script itself, and with a crash between.
    let text =
        format!("{NONE} f:sysctl('{}', 2) f:link('p7'):rename('p8')", key.replace("NAME", "p7"));
    room.up("it", &text);
    room.kill("it");
    assert_eq!(room.sysctl(&key.replace("NAME", "p8")), "2");
    room.run(&["clean", "it"]).expect(0, "");
    assert_eq!(room.sysctl(&key.replace("NAME", "p7")), before);
}
