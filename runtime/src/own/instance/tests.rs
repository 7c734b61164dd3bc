//! Claims in directories of the tests' own. One process stands for several: the locks belong to open file descriptions,
//! so each claim is an owner of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Claim, Found, Instances};

struct Room {
    directory: tempfile::TempDir,
    instances: Instances,
}

impl Room {
    fn new() -> Room {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let instances = Instances { directory: directory.path().to_owned() };
        Room { directory, instances }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("it is there").flatten();
        entries.map(|entry| entry.file_name().into_string().expect("text")).collect()
    }

    fn take(&self, name: &str, script: Option<&str>) -> crate::Result<Claim> {
        self.instances.claim(name, script.map(Path::new))
    }

    #[track_caller]
    fn refusal(&self, name: &str, script: Option<&str>) -> (String, String) {
        let error = self.take(name, script).expect_err("it is refused");
        (error.to_string(), error.get_hint().unwrap_or_default().to_owned())
    }

    #[track_caller]
    fn found(&self, name: &str) -> Found {
        self.instances.get(name).expect("readable").expect("it is there")
    }
}

/// What a process that was killed leaves: the lock is dropped, the files stay.
fn die(claim: Claim) {
    drop(claim);
}

const SCRIPT: Option<&str> = Some("/srv/setup.lua");

#[test]
fn a_name_is_taken_once_and_free_again_without_a_trace() {
    let room = Room::new();
    let mut first = room.take("setup", SCRIPT).expect("the name is free");
    let mode = first.paths().directory().metadata().expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let pid = std::process::id();
    assert_eq!(
        room.refusal("setup", SCRIPT),
        (
            format!("instance(setup): already runs: pid {pid}, /srv/setup.lua (EBUSY)"),
            format!("end it (kill {pid}), or --name for a second one")
        )
    );
    assert_eq!(room.refusal("setup", Some("/other.lua")).1, "--name gives this one another name");
    first.set_background().expect("written");
    assert_eq!(room.refusal("setup", SCRIPT).1, "cnfscript reload setup, or cnfscript down setup");
    first.record.background = false;
    room.take("second", SCRIPT).expect("another name is free").finish(0);
    first.finish(0);
    assert_eq!(room.names(), [""; 0]);
    room.take("setup", Some("/other.lua")).expect("free again").finish(0);
}

#[test]
fn a_dead_one_is_found_and_its_journal_kept() {
    let room = Room::new();
    let dying = room.take("setup", SCRIPT).expect("free");
    fs::write(dying.paths().journal(), "something").expect("written");
    assert!(room.found("setup").alive);
    die(dying);
    let found = room.found("setup");
    assert!(!found.alive && found.record.expect("it said who").ended.is_none());
    assert_eq!(
        room.refusal("setup", Some("/other.lua")),
        (
            "instance(setup): /srv/setup.lua died under this name and left things behind (EEXIST)"
                .into(),
            "cnfscript clean setup removes them; --name gives this one another name".into()
        )
    );
    let next = room.take("setup", SCRIPT).expect("the same script may");
    assert_eq!(next.previous().expect("it was there").pid, std::process::id());
    assert!(next.paths().left_something());
    // A journal that is not empty is never lost by an end.
    let journal = next.paths().journal();
    next.finish(0);
    assert_eq!(fs::read(journal).expect("kept"), b"something");
}

#[test]
fn what_another_boot_left_is_nothing() {
    let room = Room::new();
    let mut dying = room.take("setup", SCRIPT).expect("free");
    fs::write(dying.paths().journal(), "something").expect("written");
    dying.record.boot = "another".into();
    dying.write_down().expect("written");
    die(dying);
    let next = room.take("setup", Some("/other.lua")).expect("even another script may");
    assert!(!next.paths().left_something());
}

#[test]
fn a_background_one_leaves_its_log_and_its_end() {
    let room = Room::new();
    let mut up = room.take("up", SCRIPT).expect("free");
    up.set_background().expect("written");
    fs::write(up.paths().log(), "said").expect("written");
    up.finish(3);
    let found = room.found("up");
    assert_eq!(found.record.as_ref().expect("readable").ended.map(|end| end.status), Some(3));
    assert!(!found.alive);
    assert!(found.remove().expect("ours"));
    assert_eq!(room.names(), [""; 0]);
}

#[test]
fn one_that_lives_is_not_removed() {
    let room = Room::new();
    let alive = room.take("alive", SCRIPT).expect("free");
    let found = room.found("alive");
    assert!(!found.remove().expect("asked"));
    assert!(alive.paths().directory().is_dir());
}

#[test]
fn garbage_in_the_record_hinders_nobody() {
    let room = Room::new();
    let first = room.take("setup", SCRIPT).expect("free");
    fs::write(first.paths().record(), "{\"pid\": ").expect("written");
    let refused = room.refusal("setup", SCRIPT).0;
    assert_eq!(
        refused,
        "instance(setup): already runs, in a process that has not said which (EBUSY)"
    );
    die(first);
    assert!(room.take("setup", SCRIPT).expect("free").previous().is_none());
}

#[test]
fn a_directory_that_cannot_be_used_is_an_error_and_leaves_nothing() {
    let room = Room::new();
    fs::write(room.directory.path().join("file"), "").expect("written");
    let refused = room.refusal("file", SCRIPT);
    assert!(refused.0.ends_with("(ENOTDIR)"), "{refused:?}");
    let open = room.directory.path().join("open");
    fs::create_dir(&open).expect("made");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("set");
    assert!(room.refusal("open", SCRIPT).0.contains("only its owner writes"));
    let nowhere = Instances { directory: "/proc/nowhere".into() };
    let refused = nowhere.claim("setup", None).expect_err("it is refused");
    assert_eq!(refused.to_string(), "instance(/proc/nowhere): no such file or directory (ENOENT)");
}

#[test]
fn names_are_checked() {
    let room = Room::new();
    for name in ["", ".", "..", ".hidden", "-n", "a/b", "a\nb", &"x".repeat(86)] {
        assert!(room.refusal(name, SCRIPT).0.ends_with("(EINVAL)"), "{name:?}");
    }
    for name in ["setup", "a b", "ü", "e-12", "a.b%c", &"x".repeat(85)] {
        room.take(name, SCRIPT).expect(name).finish(0);
    }
    let pins = |directory: &str| super::Paths::of(Path::new(directory), "a.b%c").pins().to_owned();
    assert_eq!(pins("/run/cnfscript"), Path::new("/sys/fs/bpf/cnfscript/a%2Eb%25c"));
    assert_ne!(pins("/run/one"), pins("/run/two"), "one name in two places");
}

#[test]
fn many_want_one_name_and_one_has_it() {
    let room = Room::new();
    for _ in 0..50 {
        std::thread::scope(|scope| {
            let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| room.take("one", SCRIPT))).collect();
            let taken: Vec<_> = takers.into_iter().map(|t| t.join().expect("no panic")).collect();
            let winners = taken.into_iter().flatten().collect::<Vec<_>>();
            assert_eq!(winners.len(), 1);
            winners.into_iter().for_each(|claim| claim.finish(0));
        });
    }
}
