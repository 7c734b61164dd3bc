//! Real files, saved in every way that editors and tools have.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::{Content, Files, GONE_AFTER, SAME_SAVE, Watcher};

/// No report takes longer, whatever else the machine does.
const BOUND: Duration = Duration::from_secs(5);
/// What is not reported by then is not.
const QUIET: Duration = Duration::from_millis(60);

struct Bench {
    directory: tempfile::TempDir,
    watcher: Watcher,
    reports: Receiver<Vec<PathBuf>>,
}

impl Bench {
    fn new() -> Bench {
        let (send, reports) = channel();
        let watcher = Watcher::start(move |paths| send.send(paths).expect("the test listens"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        Bench { directory, watcher: watcher.expect("inotify"), reports }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("it takes the text");
        path
    }

    /// Loads the files: what is read now is what counts.
    fn load(&self, paths: &[&Path]) {
        self.loaded(paths, false);
    }

    /// As [`Bench::load`]; whether that failed.
    fn loaded(&self, paths: &[&Path], failed: bool) {
        let files = paths.iter().map(|path| (path.to_path_buf(), Content::read(path)));
        self.watcher.follow(files.collect(), failed);
        self.settle();
    }

    /// Until the watcher has taken its order. A change that comes before the watch is seen too, but by comparing at the
    /// start and not the way that the test means; so it gets a moment to set its watches.
    fn settle(&self) {
        while self.watcher.orders.next.lock().expect("no panic").follow.is_some() {
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }

    #[track_caller]
    fn expect(&self, paths: &[&Path]) {
        let reported = self.reports.recv_timeout(BOUND).expect("a report");
        assert_eq!(reported, paths);
    }

    #[track_caller]
    fn expect_nothing(&self) {
        if let Ok(paths) = self.reports.recv_timeout(QUIET) {
            panic!("reported {paths:?}");
        }
    }

    /// One change, reported; loaded again.
    #[track_caller]
    fn expect_change(&self, path: &Path, change: impl FnOnce()) {
        change();
        self.expect(&[path]);
        self.load(&[path]);
    }
}

#[test]
fn saves_of_every_kind() {
    let bench = Bench::new();
    let script = bench.write("script.lua", "1");
    bench.load(&[&script]);
    let other = |text: &str| bench.write("other", text);

    bench.expect_change(&script, || fs::write(&script, "written over").expect("written"));
    bench.expect_change(&script, || fs::rename(other("renamed in"), &script).expect("renamed"));
    bench.expect_change(&script, || {
        // vim: the old file is moved away, the new one written in its place.
        fs::rename(&script, bench.path("script.lua~")).expect("renamed");
        fs::write(&script, "as vim does").expect("written");
    });
    bench.expect_change(&script, || {
        fs::remove_file(&script).expect("removed");
        fs::hard_link(other("linked"), &script).expect("linked");
    });
    bench.expect_change(&script, || {
        fs::remove_file(&script).expect("removed");
        fs::write(&script, "deleted and rewritten").expect("written");
    });
    bench.expect_nothing();
}

#[test]
fn a_file_is_read_when_it_is_closed() {
    let bench = Bench::new();
    let script = bench.write("script.lua", "whole");
    bench.load(&[&script]);
    fs::remove_file(&script).expect("removed");
    let mut half = fs::File::create(&script).expect("created");
    std::io::Write::write_all(&mut half, b"half").expect("written");
    bench.expect_nothing();
    drop(half);
    bench.expect(&[&script]);
}

#[test]
fn without_a_change_of_content_nothing_is_reported() {
    let bench = Bench::new();
    let script = bench.write("script.lua", "same");
    bench.load(&[&script]);
    fs::File::options().append(true).open(&script).expect("touched");
    // By itself: it is read when it is closed, and a save in that moment has just truncated it.
    bench.expect_nothing();
    fs::write(&script, "same").expect("written");
    bench.expect_nothing();
    fs::rename(bench.write("other", "same"), &script).expect("renamed");
    bench.write("unrelated", "1");
    bench.expect_nothing();
    fs::write(&script, "other").expect("written");
    bench.expect(&[&script]);
}

#[test]
fn a_save_of_what_has_failed_is_told_of_no_paths() {
    let bench = Bench::new();
    let script = bench.write("script.lua", "wrong");
    bench.loaded(&[&script], true);
    // Still the save that was loaded.
    fs::write(&script, "wrong").expect("written");
    bench.expect_nothing();
    std::thread::sleep(SAME_SAVE);
    fs::write(&script, "wrong").expect("written");
    bench.expect(&[]);
    fs::write(&script, "right").expect("written");
    bench.expect(&[&script]);
    bench.load(&[&script]);
    std::thread::sleep(SAME_SAVE);
    fs::write(&script, "right").expect("written");
    bench.expect_nothing();
}

#[test]
fn a_save_between_reading_and_following_is_reported() {
    let bench = Bench::new();
    let script = bench.write("script.lua", "saved meanwhile");
    bench.watcher.follow(Files::from([(script.clone(), Content::of(b"what was loaded"))]), false);
    bench.expect(&[&script]);
}

#[test]
fn a_burst_is_one_report_and_one_more_with_the_last_save() {
    let bench = Bench::new();
    let script = bench.write("script.lua", "0");
    bench.load(&[&script]);
    for save in 1..=100 {
        fs::write(&script, save.to_string()).expect("written");
    }
    bench.expect(&[&script]);
    bench.expect_nothing();
    // The load that followed the first report had read some save in the middle.
    bench.watcher.follow(Files::from([(script.clone(), Content::of(b"37"))]), false);
    bench.expect(&[&script]);
    bench.load(&[&script]);
    bench.expect_nothing();
    assert_eq!(fs::read(&script).expect("read"), b"100");
}

#[test]
fn what_a_failed_load_did_not_read_is_reported_once() {
    let bench = Bench::new();
    let (main, module) = (bench.write("main.lua", "1"), bench.write("module.lua", "1"));
    let live =
        Files::from([(main.clone(), Content::of(b"1")), (module.clone(), Content::of(b"1"))]);
    bench.watcher.follow(live.clone(), false);
    bench.settle();
    // The load after it fails in main.lua: the module is as the live one read it.
    let after = |text: &[u8]| {
        let mut files = live.clone();
        files.insert(main.clone(), Content::of(text));
        bench.watcher.follow(files, false);
        bench.settle();
    };
    fs::remove_file(&module).expect("removed");
    bench.expect(&[&module]);
    after(b"1");
    std::thread::sleep(GONE_AFTER);
    bench.expect_nothing();
    fs::write(&module, "2").expect("written");
    bench.expect(&[&module]);
    after(b"1");
    bench.expect_nothing();
    fs::write(&module, "2").expect("the same, written again");
    bench.expect_nothing();
    fs::write(&main, "2").expect("written");
    bench.expect(&[&main]);
    after(b"2");
    bench.expect_nothing();
    // One that did read it, but something else, is told.
    bench.load(&[&main]);
    bench.watcher.follow(Files::from([(module.clone(), Content::of(b"meanwhile"))]), false);
    bench.expect(&[&module]);
    // As is a change there and back.
    bench.load(&[&module]);
    for text in ["3", "2", "3"] {
        bench.expect_change(&module, || fs::write(&module, text).expect("written"));
    }
}

#[test]
fn what_is_deleted_after_it_has_failed_is_reported_once_and_again_when_it_is_back() {
    let bench = Bench::new();
    let (main, module) = (bench.write("main.lua", "1"), bench.write("module.lua", "1"));
    bench.load(&[&main, &module]);
    // A load that fails without the module goes on with what the live one has read of it.
    let fail = |read: &[(&Path, &[u8])]| {
        let all = [(&*main, b"1" as &[u8]), (&*module, b"1")];
        let all =
            all.iter().chain(read).map(|(path, text)| (path.to_path_buf(), Content::of(text)));
        bench.watcher.follow(all.collect(), true);
        bench.settle();
    };
    for _ in 0..2 {
        fs::write(&module, "wrong").expect("written");
        bench.expect(&[&module]);
        fail(&[(&module, b"wrong")]);
        fs::remove_file(&module).expect("removed");
        bench.expect(&[&module]);
        fail(&[]);
        std::thread::sleep(GONE_AFTER);
        bench.expect_nothing();
        // As the live load has read it: the failure is not one of that.
        std::thread::sleep(SAME_SAVE);
        fs::write(&module, "1").expect("written");
        bench.expect(&[&module]);
        bench.load(&[&main, &module]);
        bench.expect_nothing();
    }
}

#[test]
fn what_is_saved_during_a_load_is_reported_together_and_after_it() {
    let bench = Bench::new();
    let paths = ["a.lua", "b.lua", "c.lua"].map(|name| bench.write(name, "1"));
    let loaded: Files = paths.iter().map(|path| (path.clone(), Content::of(b"1"))).collect();
    let [a, b, c] = &paths;
    bench.watcher.follow(loaded.clone(), false);
    bench.settle();
    fs::write(a, "2").expect("written");
    bench.expect(&[a]);
    fs::write(b, "2").expect("written");
    fs::write(c, "2").expect("written");
    bench.expect_nothing();
    bench.watcher.follow(loaded, false);
    bench.expect(&[b, c]);
}

#[test]
fn symlinks_on_the_way_are_followed() {
    let bench = Bench::new();
    for version in ["v1", "v2"] {
        fs::create_dir(bench.path(version)).expect("made");
        bench.write(&format!("{version}/script.lua"), version);
    }
    // As a mounted ConfigMap has it: script.lua -> ..data/script.lua, ..data -> v1.
    symlink("v1", bench.path("..data")).expect("linked");
    symlink("..data/script.lua", bench.path("script.lua")).expect("linked");
    let script = bench.path("script.lua");
    bench.load(&[&script]);
    bench.expect_change(&script, || drop(bench.write("v1/script.lua", "at the target")));
    bench.expect_change(&script, || {
        symlink("v2", bench.path("..new")).expect("linked");
        fs::rename(bench.path("..new"), bench.path("..data")).expect("renamed");
    });
    bench.write("v1/script.lua", "no longer on the way");
    bench.expect_nothing();
    bench.expect_change(&script, || drop(bench.write("v2/script.lua", "at the new target")));
    bench.expect_change(&script, || {
        fs::remove_file(&script).expect("removed");
        symlink(bench.write("elsewhere", "absolute"), &script).expect("linked");
    });
}

#[test]
fn a_replaced_directory_is_followed() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("a/b")).expect("made");
    let script = bench.write("a/b/script.lua", "1");
    bench.load(&[&script]);
    bench.expect_change(&script, || {
        fs::create_dir_all(bench.path("new/b")).expect("made");
        bench.write("new/b/script.lua", "2");
        fs::rename(bench.path("a"), bench.path("old")).expect("renamed");
        fs::rename(bench.path("new"), bench.path("a")).expect("renamed");
    });
    bench.write("old/b/script.lua", "not it");
    bench.expect_nothing();
    bench.expect_change(&script, || drop(bench.write("a/b/script.lua", "3")));
    bench.expect_change(&script, || {
        fs::remove_dir_all(bench.path("a")).expect("removed");
        fs::create_dir_all(bench.path("a/b")).expect("made");
        bench.write("a/b/script.lua", "4");
    });
    bench.expect_change(&script, || drop(bench.write("a/b/script.lua", "5")));
}

#[test]
fn a_file_that_stays_away_is_a_change_and_so_is_one_that_comes() {
    let bench = Bench::new();
    let module = bench.write("module.lua", "1");
    bench.load(&[&module]);
    let removed = Instant::now();
    fs::remove_file(&module).expect("removed");
    bench.expect(&[&module]);
    assert!(removed.elapsed() >= GONE_AFTER, "editors delete before they write");
    bench.load(&[&module]);
    bench.expect_nothing();
    bench.expect_change(&module, || drop(bench.write("module.lua", "2")));

    let absent = bench.path("not/there/yet.lua");
    bench.load(&[&absent]);
    fs::create_dir_all(bench.path("not/there")).expect("made");
    bench.expect_nothing();
    bench.expect_change(&absent, || fs::write(&absent, "here").expect("written"));
}

#[test]
fn strange_files_do_no_harm() {
    let bench = Bench::new();
    let (fifo, ring) = (bench.path("fifo"), bench.path("ring"));
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("made");
    symlink("ring", &ring).expect("linked");
    let directory = bench.directory.path().to_path_buf();
    let script = bench.write("script.lua", "1");
    bench.load(&[&fifo, &ring, &directory, Path::new(""), Path::new("/"), &script]);
    bench.expect_nothing();
    fs::write(&script, "2").expect("written");
    bench.expect(&[&script]);
}

#[test]
fn a_report_comes_within_milliseconds_of_the_close() {
    let bench = Bench::new();
    let script = bench.write("script.lua", "0");
    let mut waits: Vec<Duration> = (1..=50)
        .map(|save| {
            bench.load(&[&script]);
            let mut file = fs::File::create(&script).expect("opened");
            std::io::Write::write_all(&mut file, &[b'x'; 64].repeat(save)).expect("written");
            let closed = Instant::now();
            drop(file);
            bench.expect(&[&script]);
            closed.elapsed()
        })
        .collect();
    waits.sort();
    // The middle one: others run on this machine too.
    assert!(waits[25] < Duration::from_millis(5), "{waits:?}");
}

#[test]
fn a_dropped_watcher_leaves_no_descriptor() {
    let descriptors = || fs::read_dir("/proc/self/fd").expect("a list").count();
    let before = descriptors();
    for _ in 0..200 {
        let watcher = Watcher::start(|_| ()).expect("inotify");
        watcher.follow(Files::from([("/etc/hostname".into(), Content::Missing)]), false);
    }
    // Other tests of this process open a few meanwhile; 200 watchers would be 400.
    assert!(descriptors() < before + 100, "{before} -> {}", descriptors());
}
