//! The program library through reloads: a script that says the same keeps each of its programs with the maps as they are; a load
//! that says something else and then fails leaves what runs exactly as it was.

mod room;

use std::collections::BTreeMap;

use cnfscript::kernel::bpf::{Map, MapKind, Program};
use room::*;
use serde_json::{Value, json};

/// Prints the ids of all programs on the hooks of a namespace, except an end's own peer's.
const HOOKS: &str = "
for _, link in ipairs(cnf.netns.get('PREFIXa'):links()) do
  local hooks = { cnf.xdp.query(link) }
  for _, way in ipairs { 'ingress', 'egress' } do
    table.insert(hooks, cnf.bpf.has('tcx').available and cnf.tcx.query(link, way) or cnf.tc.query(link, way))
  end
  for _, hook in ipairs(hooks) do
    for _, program in ipairs(hook.programs) do
      print(program.id)
    end
  end
end
";

/// What packets and time change: everything else is as a script has said it.
const COUNTING: [&str; 11] = [
    "counters",
    "flows",
    "totals",
    "samples",
    "fragments",
    "sources",
    "buckets",
    "bucket",
    "fault",
    "stash",
    "clock",
];

/// Of every map that programs on the hooks reach: its id and what is in it.
type Contents = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

fn contents(ids: &[u32]) -> Contents {
    let mut found = Contents::new();
    let mut programs = ids.to_vec();
    while let Some(id) = programs.pop() {
        let program = Program::by_id(id).expect("it is there");
        found.insert(format!("program {} {id}", program.name()), Vec::new());
        for id in program.info().expect("it is there").map_ids {
            let map = Map::by_id(id).expect("it is there");
            let key = format!("{} {id}", map.name());
            if found.contains_key(&key) {
                continue;
            }
            let counting = COUNTING.contains(&map.name());
            let entries = if counting { Vec::new() } else { sorted(&map) };
            if map.info().kind == MapKind::PROG_ARRAY {
                let ids = entries.iter().filter_map(|(_, id)| id.as_slice().try_into().ok());
                programs.extend(ids.map(u32::from_ne_bytes));
            }
            found.insert(key, entries);
        }
    }
    found
}

fn sorted(map: &Map) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut entries: Vec<_> = map.entries().filter_map(Result::ok).collect();
    entries.sort();
    entries
}

impl Room {
    fn live(&self) -> Contents {
        let chunk = HOOKS.replace("PREFIX", &self.prefix);
        let said = self.run(&["-e", &chunk]);
        let ids: Vec<u32> = said.out.lines().filter_map(|line| line.parse().ok()).collect();
        assert!(!ids.is_empty(), "{said:?}");
        contents(&ids)
    }
}

/// `first` through a reload that changes nothing, one that says `other` and fails, and one that says it.
fn goes_on(first: &str, other: &str) {
    let room = Room::new();
    let (first, other) = (format!("{LINKS}{first}"), format!("{LINKS}{other}"));
    room.up("it", &first);
    let before = room.live();
    for _ in 0..2 {
        let same = room.turn("it", &first);
        assert_eq!([&same["created"], &same["changed"], &same["deleted"]], [&json!([]); 3]);
        assert_eq!(room.live(), before, "the same programs and maps");
    }
    let said = room.reload_with("it", &format!("{other}\nmeanwhile() error('late')"), || {
        assert_eq!(room.live(), before, "a load changes nothing before its commit");
    });
    said.expect(1, "late");
    assert_eq!(room.live(), before, "a load that failed has changed nothing");
    // Refused by the kernel, after all the rest was done.
    let refused = "a:route { dst = '10.1.0.0/16', via = '10.99.0.1' }";
    room.reload("it", &format!("{other}\n{refused}")).expect(1, "(ENETUNREACH)");
    assert_eq!(room.live(), before, "a commit that was refused has changed nothing");
    let same = room.turn("it", &first);
    assert_eq!(same["changed"], json!([]), "{same}");
    let changed = room.turn("it", &other);
    assert_ne!(changed["changed"], json!([]), "{changed}");
    let after = room.live();
    assert_ne!(after, before);
    let same = room.turn("it", &other);
    assert_eq!(same["changed"], json!([]), "{same}");
    assert_eq!(room.live(), after);
}

macro_rules! cases {
    ($($name:ident: $first:expr => $other:expr;)*) => {
        $(#[test] fn $name() { goes_on($first, $other) })*
    };
}

const SERVICE: &str = "cnf.lb.service { name = 'web', vip = '192.0.2.1:80', attach = { v1 },
    backends = { '10.77.2.2:80', '10.77.2.3:80' } }";

cases! {
    a_service: SERVICE => &SERVICE.replace("10.77.2.3", "10.77.2.4");
    a_service_that_is_drained: SERVICE => &format!("local s = {SERVICE} s:drain('10.77.2.3:80')");
    a_service_of_other_backends: SERVICE => &format!("local s = {SERVICE} s:set_backends {{ '10.77.2.9:80' }}");
    a_mirror: "cnf.mirror.to { from = v1, direction = 'ingress', to = v2 }"
        => "cnf.mirror.to { from = v1, direction = 'ingress', to = v2, sample = '1/64', match = { proto = 'udp' } }";
    a_filter: "cnf.filter.xdp { link = v1, deny = { '10.1.0.0/16', 'fd00::/8' }, allow = '10.1.1.0/24' }"
        => "cnf.filter.xdp { link = v1, deny = { '10.1.0.0/16', '10.2.0.0/17' }, allow = '10.1.1.0/24' }";
    a_filter_with_a_rate: "cnf.filter.xdp { link = v1, rate = { pps = 1000, per = 'source' } }"
        => "cnf.filter.xdp { link = v1, rate = { pps = 2000, per = 'source' } }";
    a_filter_that_denies_more: "local f = cnf.filter.xdp { link = v1, deny = '10.1.0.0/16' } f:deny('10.2.0.0/17') f:allow('10.3.0.0/18')"
        => "local f = cnf.filter.xdp { link = v1, deny = '10.1.0.0/16' } f:deny('10.2.0.0/18')";
    a_filter_that_denies_another_length: "local f = cnf.filter.xdp { link = v1, deny = '10.1.0.0/16' }"
        => "local f = cnf.filter.xdp { link = v1, deny = '10.1.0.0/16' } f:deny('10.2.0.0/17') f:deny('fd00::/9')";
    forwarding: "cnf.forward.xdp { links = { v1, v2 } }" => "cnf.forward.xdp { links = { v1 } }";
    a_limit: "cnf.police.limit { link = v1, rate = '10mbit' }
              cnf.police.limit { link = v1, direction = 'egress', pps = 10, per = 'source' }"
        => "cnf.police.limit { link = v1, rate = '10mbit' }
            cnf.police.limit { link = v1, direction = 'egress', pps = 20, per = 'source' }";
    a_limit_at_xdp: "cnf.police.limit { link = v1, hook = 'xdp', pps = 10 }"
        => "cnf.police.limit { link = v1, hook = 'xdp', pps = 10, match = { proto = 'tcp' } }";
    a_limit_that_is_set: "cnf.police.limit { link = v1, pps = 10 }"
        => "local l = cnf.police.limit { link = v1, pps = 10 } l:set { pps = 20 }";
    accounting: "cnf.flow.account { link = v1 }"
        => "cnf.flow.account { link = v1, match = { proto = 'tcp' } }";
    accounting_with_a_sample: "cnf.flow.account { link = v1, sample = '1/2', on_sample = print }"
        => "cnf.flow.account { link = v1, sample = '1/4', on_sample = print }";
    a_fault: "cnf.chaos.inject(v1, { loss = { every = 3 }, direction = 'both', seed = 7 })"
        => "cnf.chaos.inject(v1, { loss = { every = 4 }, direction = 'both', seed = 7 })";
    faults_by_chance: "cnf.chaos.inject(v1, { loss = '1%' }) cnf.chaos.inject(v1, { corrupt = '1%', duration = '1h' })"
        => "cnf.chaos.inject(v1, { loss = '1%' }) cnf.chaos.inject(v1, { corrupt = '2%', duration = '1h' })";
    stages_of_one_link: "cnf.filter.xdp { link = v1, deny = '10.1.0.0/16', mode = 'generic' }
                         cnf.police.limit { link = v1, hook = 'xdp', pps = 10 }
                         cnf.forward.xdp { links = { v1, v2 } }"
        => "cnf.forward.xdp { links = { v1, v2 } }
            cnf.police.limit { link = v1, hook = 'xdp', pps = 10 }";
}

/// However often a load says its backends: the table that packets read is not written to.
#[test]
fn a_load_that_says_its_backends_several_times_writes_the_other_table() {
    let room = Room::new();
    let text = |said: &str| {
        let service = "local s = cnf.lb.service { name = 'web', vip = '192.0.2.1:80', attach = { v1 }, idle = IDLE,
            proto = 'udp', backends = { '10.77.2.2:80', '10.77.2.3:80' } }";
        format!("{LINKS}{service}\n{said}")
            .replace("IDLE", if said.is_empty() { "60" } else { "61" })
    };
    let tables = || -> (u32, Vec<Vec<u8>>) {
        let live = room.live();
        let entries = |name: &str| {
            let map = live.iter().find(|(key, _)| key.starts_with(name)).expect("it is there").1;
            map.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        // struct service: `live` comes after the address, the port, the protocol and a byte.
        let service = entries("service ").remove(0);
        (u32::from_ne_bytes(service[20..24].try_into().expect("four")), entries("tables "))
    };
    room.up("it", &text(""));
    let service = format!("service web in netns {}a", room.prefix);
    let mut before = tables();
    let cases = [
        "s:set_backends { '10.77.2.4:80' }",
        "s:set_backends { '10.77.2.5:80' } s:set_backends { '10.77.2.6:80' }",
        "s:set_backends { '10.77.2.5:80' } s:drain('10.77.2.5:80') s:set_backends { '10.77.2.7:80' } s:set_backends { '10.77.2.8:80' }",
    ];
    for case in cases {
        let told = room.turn("it", &text(case));
        let changed: Vec<&str> =
            told["changed"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert_eq!(changed, [service.as_str()], "all of its maps are one thing");
        let after = tables();
        let read = before.0 as usize;
        assert_eq!(after.0, 1 - before.0, "{case}");
        assert_eq!(after.1[read], before.1[read], "{case}");
        assert_ne!(after.1[1 - read], before.1[1 - read], "{case}");
        before = after;
    }
    // What they are in the end is what they were.
    room.turn("it", &text("s:set_backends { '10.77.2.2:80', '10.77.2.3:80' }"));
    let before = tables();
    let back =
        "s:set_backends { '10.77.2.9:80' } s:set_backends { '10.77.2.2:80', '10.77.2.3:80' }";
    let told = room.turn("it", &text(back));
    assert_eq!(told["changed"], json!([service]), "there is one more to know of");
    assert_eq!(tables(), before);
    assert_eq!(room.turn("it", &text(back))["changed"], json!([]));
}

/// However often a load denies networks of lengths that are new: the list that frames read is not written to, and the word that
/// names the other is a map of its own, which no frame can see half of.
#[test]
fn a_load_that_denies_other_lengths_writes_the_other_list() {
    let room = Room::new();
    let text = |said: &str| {
        format!("{LINKS}local f = cnf.filter.xdp {{ link = v1, deny = '10.1.0.0/16' }}\n{said}")
    };
    let lists = || -> (usize, Vec<Vec<u8>>) {
        let live = room.live();
        let values = |name: &str| {
            let map = live.iter().find(|(key, _)| key.starts_with(name)).expect("it is there").1;
            map.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>()
        };
        let word = <[u8; 4]>::try_from(values("live ").remove(0)).expect("one word");
        (u32::from_ne_bytes(word) as usize, values("lengths "))
    };
    room.up("it", &text(""));
    let mut before = lists();
    let cases = [
        "f:deny('10.2.0.0/17')",
        "f:deny('10.2.0.0/17') f:deny('10.2.0.0/18') f:allow('fd00::/9')",
        "f:deny('10.2.0.0/19') f:deny('10.2.0.0/17') f:deny { '10.2.0.0/20', 'fd00::/10' }",
    ];
    for case in cases {
        room.turn("it", &text(case));
        let (read, after) = (before.0, lists());
        assert_eq!(after.0, 1 - read, "{case}");
        assert_eq!(after.1[read], before.1[read], "{case}");
        assert_ne!(after.1[1 - read], before.1[1 - read], "{case}");
        // And none of it by a load that is refused.
        let more = format!("{case} f:deny('10.3.0.0/31') error('late')");
        room.reload("it", &text(&more)).expect(1, "late");
        assert_eq!(lists(), after, "{case}");
        before = after;
    }
    // Lengths that are there already change nothing.
    room.turn("it", &text("f:deny('10.4.0.0/20') f:deny('fd01::/16') f:deny('10.4.0.0/16')"));
    let (read, after) = (before.0, lists());
    assert_eq!((after.0, &after.1[read]), (1 - read, &before.1[read]), "for fd01::/16");
    room.turn("it", &text("f:deny('10.4.0.0/20') f:deny('10.4.0.0/17')"));
    assert_eq!(lists(), after);
}

/// What is said of a fault again after its end is a new one.
#[test]
fn a_fault_begins_anew_after_its_end() {
    let room = Room::new();
    let text = format!(
        "{LINKS}
cnf.state.loads = (cnf.state.loads or 0) + 1
local f = cnf.chaos.inject(v1, {{ loss = '50%' }})
print('seed ' .. f.seed)
cnf.wait()
if cnf.state.loads == 2 then f:heal() end
print('load ' .. cnf.state.loads)"
    );
    room.up("it", &text);
    let said = |word: &str| {
        let log = room.run(&["logs", "it"]).out;
        let said = log.lines().rev().find_map(|l| l.strip_prefix(word)).map(str::to_owned);
        said.unwrap_or_default()
    };
    let seed = said("seed ");
    let same = room.turn("it", &text);
    assert_eq!((said("seed "), &same["created"]), (seed.clone(), &json!([])));
    eventually(|| said("load ") == "2");
    let again = room.turn("it", &text);
    assert_ne!((said("seed "), &again["created"]), (seed, &json!([])), "it was healed");
}

/// What a task has denied since belongs to the load that it was of.
#[test]
fn a_later_load_ends_what_a_task_has_denied() {
    let room = Room::new();
    let text = format!(
        "{LINKS}
local f = cnf.filter.xdp {{ link = v1, deny = '10.1.0.0/16' }}
cnf.wait()
if cnf.generation == 1 then f:deny('10.2.0.0/16') end
print('load ' .. cnf.generation)"
    );
    let denied = |live: &Contents| {
        let prefixes = live.iter().find(|(name, _)| name.starts_with("prefixes4"));
        prefixes.map_or(0, |(_, entries)| entries.len())
    };
    room.up("it", &text);
    eventually(|| denied(&room.live()) == 2);
    assert_eq!(
        room.turn("it", &text)["changed"],
        json!([format!("filter of v1 in netns {}a", room.prefix)])
    );
    assert_eq!(denied(&room.live()), 1);
    assert_eq!(room.turn("it", &text)["changed"], json!([]));
}
