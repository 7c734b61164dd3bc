//! Objects, maps, processes and servers through a reload: the same goes on, what is changed is changed at the commit.

mod room;

use room::*;
use serde_json::json;

const OBJECT: &str = r##"
local ns = cnf.netns.new('PREFIXa')
local link = cnf.link.veth { name = 'v0', netns = ns, address = '10.0.0.1/24',
  peer = { name = 'w0', netns = cnf.netns.new('PREFIXb'), address = '10.0.0.2/24' } }
local object = cnf.bpf.compile({ source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct value { __u64 packets; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 16); __type(key, __u32);
  __type(value, struct value); } seen SEC(".maps");
__u64 runs;
SEC("tc") int count(struct __sk_buff *skb) { __u32 k = 1; struct value *v = bpf_map_lookup_elem(&seen, &k);
  runs++; if (v) v->packets++; return -1; }
char LICENSE[] SEC("license") = "GPL";
]] }, { name = 'counter' })
cnf.tcx.attach(link, 'egress', object.programs.count)
local seen = object.maps.seen
--SETUP
print('program ' .. object.programs.count.id)
print('map ' .. seen.id)
cnf.wait()
local one = seen:get(1)
print('packets ' .. (one and one.packets or 'none'))
"##;

impl Room {
    /// What the last load has printed after `word`.
    fn said(&self, word: &str) -> String {
        let log = self.run(&["logs", "it"]).out;
        let said = log.lines().rev().find_map(|l| l.strip_prefix(word)?.strip_prefix(' '));
        said.unwrap_or_else(|| panic!("no {word} in {log}")).to_owned()
    }

    #[track_caller]
    fn says(&self, word: &str, wanted: &str) {
        eventually(|| {
            self.run(&["logs", "it"]).out.lines().rev().find(|l| l.starts_with(word))
                == Some(&format!("{word} {wanted}"))
        });
    }
}

#[test]
fn the_same_object_is_the_same() {
    let room = Room::new();
    room.up("it", &OBJECT.replace("--SETUP", "seen:set(1, { packets = 0 })"));
    let before = [room.said("program"), room.said("map")];
    let same = room.turn("it", OBJECT);
    assert_eq!(same["changed"], json!([]), "{same}");
    assert_eq!([room.said("program"), room.said("map")], before);
}

#[test]
fn a_changed_program_is_swapped_and_its_maps_stay() {
    let room = Room::new();
    room.up("it", &OBJECT.replace("--SETUP", "seen:set(1, { packets = 1000 })"));
    let [program, map] = [room.said("program"), room.said("map")];
    let twice = OBJECT.replace("packets++", "packets += 2");
    let changed = room.turn("it", &twice);
    let attachment = changed["changed"][0].as_str().unwrap_or_default();
    assert!(attachment.starts_with("attachment count on tcx egress of v0"), "{changed}");
    assert_eq!(room.said("map"), map);
    assert_ne!(room.said("program"), program);
    assert!(room.said("packets").parse::<u64>().is_ok_and(|n| n >= 1000), "its contents stay");
    // Refused by clang: what runs goes on.
    let running = room.said("program");
    room.reload("it", &twice.replace("runs++", "runs+++;")).expect(1, "expected expression");
    assert_eq!(room.said("program"), running);
    // Another shape: the map is new, and why is said.
    room.turn("it", &twice.replace("__u64 packets;", "__u64 packets; __u64 bytes;"));
    assert_ne!(room.said("map"), map);
    let log = room.run(&["logs", "it"]).out;
    assert!(log.contains("counter: map seen is new: value_size 8 -> 16"), "{log}");
    room.says("packets", "none");
}

#[test]
fn processes_and_servers_go_on() {
    let room = Room::new();
    let text = "
local ns = cnf.netns.new('PREFIXa')
local server = cnf.probe.serve(ns, { tcp = 80, reply = 'one' })
local process = ns:spawn { 'sleep', '1000' }
print('pid ' .. process.pid)
cnf.wait()
print('reply ' .. cnf.probe.tcp(ns, '127.0.0.1:80').reply .. server:stats().requests)
";
    room.up("it", text);
    room.says("reply", "one1");
    let pid = room.said("pid");
    let same = room.turn("it", text);
    assert_eq!(same["changed"], json!([]), "{same}");
    room.says("reply", "one2");
    assert_eq!(room.said("pid"), pid);
    // A load that fails has not changed the reply.
    room.reload("it", &text.replace("'one'", "'two'").replace("cnf.wait()", "error('late')"))
        .expect(1, "late");
    room.turn("it", text);
    room.says("reply", "one3");
    let changed = room.turn("it", &text.replace("'one'", "'two'"));
    assert!(
        changed["changed"][0].as_str().is_some_and(|c| c.starts_with("reply of server tcp 80")),
        "{changed}"
    );
    room.says("reply", "two4");
    let without = text.replace("'sleep', '1000'", "'sleep', '2000'");
    let other = room.turn("it", &without);
    assert!(other["deleted"].to_string().contains(&format!("process {pid}")), "{other}");
    assert_ne!(room.said("pid"), pid);
    eventually(|| !std::path::Path::new(&format!("/proc/{pid}/fd")).exists() || gone(&pid));
}

fn gone(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn writes_to_live_maps_wait_for_the_commit() {
    let room = Room::new();
    let first = "seen:set(1, { packets = 5 }) seen:set(2, { packets = 6 })";
    let script = |setup: &str| {
        let object = OBJECT.replace("cnf.tcx.attach", "local _ = nil and cnf.tcx.attach");
        let read = "
local all = {}
for key, value in seen:pairs() do all[#all + 1] = key .. '=' .. value.packets end
table.sort(all)
print('live ' .. table.concat(all, ' ') .. ' runs=' .. object.globals.runs)";
        format!("{}{read}", object.replace("--SETUP", setup))
    };
    room.up("it", &script(first));
    room.says("live", "1=5 2=6 runs=0");
    let same = room.turn("it", &script(first));
    assert_eq!(same["changed"], json!([]), "{same}");
    let second = "seen:delete(2) seen:set_many { [3] = { packets = 7 }, [1] = { packets = 8 } }
object.globals.runs = 9
assert(seen:get(1).packets == 8 and seen:get(2) == nil and #seen == 2 and object.globals.runs == 9)
local count = 0
for _ in seen:pairs() do count = count + 1 end
assert(count == 2)
print('reads its own')";
    room.reload("it", &script(&format!("{second} error('late')"))).expect(1, "late");
    let log = room.run(&["logs", "it"]).out;
    assert!(log.contains("reads its own"), "{log}");
    let same = room.turn("it", &script(""));
    assert_eq!(same["changed"], json!([]), "{same}");
    room.says("live", "1=5 2=6 runs=0");
    let changed = room.turn("it", &script(second));
    let words = json!(["elements of map seen", "global variable runs"]);
    assert_eq!(changed["changed"], words, "{changed}");
    room.says("live", "1=8 3=7 runs=9");
    // Refused at the commit: nothing of it is there.
    let full = "for n = 100, 130 do seen:set(n, { packets = 1 }) end";
    room.reload("it", &script(full)).expect(1, "the map is full");
    room.turn("it", &script(""));
    room.says("live", "1=8 3=7 runs=9");
}

fn has_said(room: &Room, word: &str) -> bool {
    room.run(&["logs", "it"]).out.lines().any(|line| line.starts_with(word))
}

#[test]
fn handles_of_the_load_before_only_read() {
    let room = Room::new();
    let handlers = "seen:set(1, { packets = 5 })
local router = cnf.policy.router { attach = { { link, 'ingress' } } }
local server = cnf.probe.serve(ns, { tcp = 80 })
cnf.on_stop(function()
  local function code(f, ...) return select(2, pcall(f, ...)).code end
  print('stale ' .. table.concat({
    code(seen.set, seen, 1, { packets = 6 }), code(seen.delete, seen, 1), code(seen.clear, seen),
    code(router.set, router, {}), code(router.clear, router), code(object.unload, object), code(server.stop, server),
    seen:get(1).packets, #router:list(),
  }, ' '))
end)";
    let quiet = OBJECT.replace("cnf.tcx.attach", "local _ = nil and cnf.tcx.attach");
    room.up("it", &quiet.replace("--SETUP", handlers));
    room.turn("it", &quiet);
    eventually(|| has_said(&room, "stale"));
    assert_eq!(room.said("stale"), "ESTALE ESTALE ESTALE ESTALE ESTALE ESTALE ESTALE 5 0");
}

const NUMBERS: &str = r##"
local object = cnf.bpf.compile({ source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u64); } numbers SEC(".maps");
SEC("tc") int nothing(struct __sk_buff *skb) { return 0; }
char LICENSE[] SEC("license") = "GPL";
]] }, { name = 'numbers' })
local numbers = object.maps.numbers
--SETUP
cnf.wait()
print('now ' .. tostring(numbers:get(1)) .. ' ' .. tostring(numbers:get(2)))
cnf.task.sleep(1000)
"##;

/// Numbers take a way of their own.
#[test]
fn numbers_in_live_maps_wait_too() {
    let room = Room::new();
    let script = |setup: &str| NUMBERS.replace("--SETUP", setup);
    let first = "numbers:set(1, 5) numbers:set(2, 6) assert(numbers:get(2) == 6)
cnf.on_stop(function()
  local function code(f, ...) return select(2, pcall(f, ...)).code end
  print('stale ' .. code(numbers.set, numbers, 1, 7) .. ' ' .. code(numbers.delete, numbers, 1) .. ' ' .. numbers:get(1))
end)";
    room.up("it", &script(first));
    room.says("now", "5 6");
    let second = "numbers:set(1, 8) assert(numbers:delete(2) == true)
assert(numbers:get(1) == 8 and numbers:get(2) == nil)
assert(numbers:delete(2) == false)";
    room.reload("it", &script(&format!("{second} error('late')"))).expect(1, "late");
    room.turn("it", &script(first));
    room.says("now", "5 6");
    room.turn("it", &script(second));
    room.says("now", "8 nil");
    eventually(|| has_said(&room, "stale"));
    assert_eq!(room.said("stale"), "ESTALE ESTALE 8");
}

const STEERED: &str = r##"
local ns = cnf.netns.new('PREFIXa')
local object = cnf.bpf.compile({ source = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_SOCKMAP); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u64); } sockets SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, __u32);
  __type(value, __u32); } small SEC(".maps");
SEC("sk_lookup") int steer(struct bpf_sk_lookup *ctx) {
  __u32 key = 0;
  struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &key);
  if (sk) { bpf_sk_assign(ctx, sk, 0); bpf_sk_release(sk); }
  return SK_PASS;
}
char LICENSE[] SEC("license") = "GPL";
]] }, { name = 'steering' })
cnf.bpf.attach_sk_lookup(ns, object.programs.steer)
local server = cnf.probe.serve(ns, { tcp = 8080, reply = 'first' })
local sockets = object.maps.sockets
sockets:set(0, server)
--SETUP
cnf.wait()
print('cookie ' .. sockets:get(0))
print('steered ' .. cnf.probe.tcp(ns, '127.0.0.1:80').reply)
cnf.task.every(0.05, function() print('now ' .. cnf.probe.tcp(ns, '127.0.0.1:80').reply .. sockets:get(0)) end)
"##;

#[test]
fn a_socket_stays_in_its_map_and_another_takes_its_place_at_the_commit() {
    let room = Room::new();
    room.up("it", STEERED);
    room.says("steered", "first");
    let cookie = room.said("cookie");
    let same = room.turn("it", &format!("{STEERED}print('load 2')\n"));
    assert_eq!(same["changed"], json!([]), "{same}");
    room.says("load", "2");
    assert_eq!(room.said("cookie"), cookie);

    // Refused at the commit, behind the socket: the one that was there is put back.
    let other = STEERED.replace("8080, reply = 'first'", "8081, reply = 'second'");
    let refused = other.replace("--SETUP", "object.maps.small:set_many { 1, 1 }");
    room.reload("it", &refused).expect(1, "the map is full");
    let count = || room.run(&["logs", "it"]).out.matches("now ").count();
    let before = count();
    eventually(|| count() > before + 1);
    room.says("now", &format!("first{cookie}"));
    room.turn("it", &other);
    room.says("steered", "second");
    assert_ne!(room.said("cookie"), cookie);
}
