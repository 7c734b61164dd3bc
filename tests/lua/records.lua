--- What programs send: records of ring buffers and perf event arrays by type, lines of bpf_printk.
local cnf = require("cnf")
local bpf, task, test = cnf.bpf, cnf.task, cnf.test

local SOURCE = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

enum verdict { PASS, DROP };
struct event {
  __u32 number; __be32 source; __be16 port; enum verdict verdict; char name[8];
  __u32 low : 4, high : 28; __u64 wide;
};
struct other { __u64 words[8]; };

struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 16384);
  __type(value, struct event); } events SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 16384); } plain SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
  __type(value, struct event); } perf SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
  __type(key, __u32); __type(value, __u64); } dropped SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1);
  __type(key, __u32); __type(value, struct other); } others SEC(".maps");

static __always_inline void fill(struct event *e, __u32 number) {
  __builtin_memset(e, 0, sizeof(*e));
  e->number = number;
  e->source = bpf_htonl(0x0a000001);
  e->port = bpf_htons(443);
  e->verdict = DROP;
  e->name[0] = 'e'; e->name[1] = 'v';
  e->low = 5; e->high = 77;
  e->wide = ~0ull;
}

/* Each packet's mark is the record's number; records of number 13 are taken back. */
SEC("tc") int ring(struct __sk_buff *skb) {
  struct event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
  __u32 zero = 0;
  __u64 *missed = bpf_map_lookup_elem(&dropped, &zero);
  if (!e) {
    if (missed) __sync_fetch_and_add(missed, 1);
    return 1;
  }
  fill(e, skb->mark);
  if (skb->mark == 13) bpf_ringbuf_discard(e, 0);
  else bpf_ringbuf_submit(e, skb->mark == 99 ? BPF_RB_NO_WAKEUP : 0);
  return 0;
}
SEC("tc") int bytes(struct __sk_buff *skb) {
  char text[6] = "bytes";
  bpf_ringbuf_output(&plain, text, 5, 0);
  return bpf_map_lookup_elem(&others, text) != 0;
}
SEC("tc") int trailed(struct __sk_buff *skb) {
  struct { struct event e; char tail[3]; } __attribute__((packed)) both;
  __builtin_memset(&both, 0, sizeof(both));
  fill(&both.e, 1);
  __builtin_memcpy(both.tail, "end", 3);
  bpf_ringbuf_output(&plain, &both, sizeof(both), 0);
  return 0;
}
SEC("tc") int sample(struct __sk_buff *skb) {
  struct event e;
  fill(&e, skb->mark);
  bpf_perf_event_output(skb, &perf, BPF_F_CURRENT_CPU | ((__u64)skb->mark << 32), &e, sizeof(e));
  return 0;
}
SEC("tc") int say(struct __sk_buff *skb) { bpf_printk("cnftest says %d", skb->mark); return 0; }
char LICENSE[] SEC("license") = "GPL";
]]

local FRAME = ("\1"):rep(64)

--- A fresh object and a function that runs one of its programs on a packet with a mark.
local function loaded()
  local object = bpf.compile({ source = SOURCE })
  return object, function(name, mark, count)
    local ran = object.programs[name]:test_run({
      packet = FRAME,
      repeat_count = count or 1,
      ctx = { mark = mark },
    })
    return ran.retval
  end
end

--- A handler that keeps what it is given, and what it has kept.
local function keeper()
  local kept = {}
  return function(record, rest)
    kept[#kept + 1] = { record, rest }
  end, kept
end

local function event(number)
  return {
    number = number,
    source = "10.0.0.1",
    port = 443,
    verdict = "DROP",
    name = "ev",
    low = 5,
    high = 77,
    wide = -1,
  }
end

test.case("a ring buffer's records are tables by the type its map declares, in order", function(t)
  local object, run = loaded()
  local handler, kept = keeper()
  run("ring", 1)
  local subscription = object.maps.events:on_record(handler)
  run("ring", 2)
  run("ring", 13)
  run("ring", 3)
  t:eventually(function()
    return #kept >= 3
  end)
  task.sleep(0)
  -- What waited, what came, and not what was taken back.
  t:equal(kept, { { event(1) }, { event(2) }, { event(3) } })
  -- Woken again, after it has waited.
  run("ring", 4)
  t:eventually(function()
    return #kept == 4
  end)
  local stats = subscription:stats()
  t:equal({ stats.records, stats.errors, stats.lost }, { 4, 0, nil })
  t:ok(stats.fullest > 0 and stats.fullest < 0.1, stats.fullest)
  t:equal(tostring(subscription), "RecordSubscription(events)")
end)

test.case("a perf event array's records have the packet behind them", function(t)
  local object, run = loaded()
  local handler, kept = keeper()
  local subscription = object.maps.perf:on_record(handler)
  run("sample", 0)
  run("sample", 20)
  t:eventually(function()
    return #kept == 2
  end)
  t:equal(kept[1], { event(0) })
  t:equal(kept[2][1], event(20))
  -- The kernel pads a sample, and counts the padding in.
  t:equal(kept[2][2]:sub(1, 20), FRAME:sub(1, 20))
  t:ok(#kept[2][2] >= 20 and #kept[2][2] < 28)
  t:equal(subscription:stats().lost, 0)
  subscription:close()
  run("sample", 0)
  t:equal(subscription:stats().records, 2)
end)

test.case("several maps have subscriptions at once, each its own", function(t)
  local object, run = loaded()
  local ring, from_ring = keeper()
  local plain, from_plain = keeper()
  local perf, from_perf = keeper()
  object.maps.events:on_record(ring)
  object.maps.plain:on_record(plain)
  object.maps.perf:on_record(perf)
  for i = 1, 10 do
    run("ring", i)
    run("bytes", i)
    run("sample", i)
  end
  t:eventually(function()
    return #from_ring == 9 + 1 and #from_plain == 10 and #from_perf == 10
  end)
  t:equal(from_plain[1], { "bytes" }, "without a type: bytes")
end)

test.case("the type can be named where the map does not say it", function(t)
  local object, run = loaded()
  local handler, kept = keeper()
  local subscription = object.maps.plain:on_record(handler, { type = "struct event" })
  run("trailed", 0)
  t:eventually(function()
    return #kept == 1
  end)
  t:equal(kept[1], { event(1), "end" })
  subscription:close()
  local short = object.maps.plain:on_record(handler, { type = "other" })
  run("bytes", 0)
  t:eventually(function()
    return short:stats().errors == 1
  end)
  t:equal(#kept, 1, "what is too short for its type is no record of it")
  short:close()
  local unknown = t:raises(function()
    object.maps.plain:on_record(handler, { type = "struct evnt" })
  end, "ENOENT")
  t:equal(unknown.hint, 'did you mean "struct event"?')
  t:equal(unknown.op, "map:on_record")
end)

test.case("a handler that only reads fields sees what one that keeps records sees", function(t)
  local object, run = loaded()
  local seen, kept, handed = {}, {}, nil
  local function put(list, ...)
    list[#list + 1] = { ... }
  end
  local function reads(e)
    put(seen, e.number, e.source, e.port, e.verdict, e.name, e.low, e.high, e.wide, e.none)
  end
  local function keeps(e)
    handed = e
    put(kept, e.number, e.source, e.port, e.verdict, e.name, e.low, e.high, e.wide, e.none)
  end
  local subscription = object.maps.events:on_record(reads)
  for i = 1, 3 do
    run("ring", i)
  end
  t:eventually(function()
    return #seen == 3
  end)
  subscription:close()
  subscription = object.maps.events:on_record(keeps)
  for i = 1, 3 do
    run("ring", i)
  end
  t:eventually(function()
    return #kept == 3
  end)
  t:equal(seen, kept)
  t:equal(seen[3], { 3, "10.0.0.1", 443, "DROP", "ev", 5, 77, -1 })
  t:equal(handed, event(3))
end)

test.case("a handler that only reads fields gets rests and errors as any other", function(t)
  local object, run = loaded()
  local seen = {}
  local subscription = object.maps.plain:on_record(function(e, rest)
    if rest == "end" and #seen == 2 then
      seen[3] = "failed"
      error("the third one")
    end
    seen[#seen + 1] = e.number .. (rest or "")
  end, { type = "struct event" })
  -- Too short, for the first and in the middle.
  for _, name in ipairs({ "bytes", "trailed", "trailed", "bytes", "trailed", "trailed" }) do
    run(name, 0)
  end
  t:eventually(function()
    return subscription:stats().records == 6
  end)
  t:equal(seen, { "1end", "1end", "failed", "1end" })
  t:equal(subscription:stats().errors, 3)
end)

test.case("records wait for a handler that reads them and waits itself", function(t)
  local object, run = loaded()
  local seen = {}
  object.maps.events:on_record(function(e)
    local before = e.number
    task.sleep(0.005)
    seen[#seen + 1] = { before, e.number }
  end)
  run("ring", 1)
  run("ring", 2)
  task.sleep(0.002)
  run("ring", 3)
  t:eventually(function()
    return #seen == 3
  end)
  t:equal(seen, { { 1, 1 }, { 2, 2 }, { 3, 3 } })
end)

test.case("an error in a handler costs its record and nothing else", function(t)
  local object, run = loaded()
  local seen = 0
  local subscription = object.maps.events:on_record(function(record)
    if record.number % 2 == 0 then
      error("an even one")
    end
    seen = seen + 1
  end)
  for i = 100, 109 do
    run("ring", i)
  end
  t:eventually(function()
    return seen == 5
  end)
  t:equal(subscription:stats().errors, 5)
  t:equal(subscription:stats().records, 10)
end)

test.case("a handler may wait, and other tasks run meanwhile", function(t)
  local object, run = loaded()
  local order, ticks = {}, 0
  object.maps.events:on_record(function(record)
    task.sleep(0.01)
    order[#order + 1] = record.number
  end)
  task.spawn(function()
    while #order < 3 do
      task.sleep(0.001)
      ticks = ticks + 1
    end
  end)
  run("ring", 1)
  run("ring", 2)
  run("ring", 3)
  t:eventually(function()
    return #order == 3
  end)
  t:equal(order, { 1, 2, 3 })
  t:ok(ticks > 3, ticks)
end)

test.case("a ring buffer that was full is told, and goes on", function(t)
  local object, run = loaded()
  local count = 0
  -- 16384 bytes hold 292 records of 56; nobody reads while test_run runs.
  local subscription = object.maps.events:on_record(function()
    count = count + 1
  end)
  run("ring", 1, 1000)
  t:eventually(function()
    return subscription:stats().records + object.maps.dropped:get(0) == 1000
  end)
  t:ok(object.maps.dropped:get(0) > 500, object.maps.dropped:get(0))
  t:ok(subscription:stats().fullest > 0.95)
  local before = count
  run("ring", 1)
  t:eventually(function()
    return count == before + 1
  end)
end)

test.case("what a perf buffer had no room for is counted by the kernel", function(t)
  local object, run = loaded()
  local count = 0
  local subscription = object.maps.perf:on_record(function()
    count = count + 1
  end, { buffer = "4k" })
  run("sample", 0, 1000)
  t:eventually(function()
    return count > 0 and count + subscription:stats().lost == 1000
  end)
  t:ok(subscription:stats().lost > 800)
  run("sample", 0)
  t:eventually(function()
    return count + subscription:stats().lost == 1001 and count < 200
  end)
end)

test.case("records that wake nobody are found in time", function(t)
  local object, run = loaded()
  local count = 0
  object.maps.events:on_record(function()
    count = count + 1
  end, { interval = "5ms" })
  task.sleep(0)
  run("ring", 99)
  t:eventually(function()
    return count == 1
  end)
end)

test.case("a closed subscription lets go of its map", function(t)
  local object, run = loaded()
  local first, from_first = keeper()
  local subscription = object.maps.events:on_record(first)
  local busy = t:raises(function()
    object.maps.events:on_record(first)
  end, "EBUSY")
  t:equal(busy.subject, "events")
  run("ring", 1)
  t:eventually(function()
    return #from_first == 1
  end)
  subscription:close()
  subscription:close()
  run("ring", 2)
  local second, from_second = keeper()
  object.maps.events:on_record(second)
  t:eventually(function()
    return #from_second == 1
  end)
  t:equal({ #from_first, from_second[1][1].number }, { 1, 2 })
  t:equal(subscription:stats().records, 1)
  -- A handler can end its own subscription.
  local own
  own = object.maps.plain:on_record(function()
    own:close()
  end)
  run("bytes", 0)
  t:eventually(function()
    return own.task.status == "cancelled"
  end)
end)

test.case("bpf_printk's lines come to everybody who listens", function(t)
  local _, run = loaded()
  local pattern = "^cnftest says (%d+)$"
  local heard = { {}, {} }
  local listeners = {}
  for i, lines in ipairs(heard) do
    listeners[i] = bpf.trace(function(line, about)
      -- Other programs of this system may be talking too.
      if line:match(pattern) then
        lines[#lines + 1] = { line:match(pattern), about }
      end
    end)
  end
  local mark = math.random(1000000)
  run("say", mark)
  run("say", mark + 1)
  local function has(lines, wanted)
    for _, line in ipairs(lines) do
      if line[1] == tostring(wanted) then
        return line[2]
      end
    end
  end
  t:eventually(function()
    return has(heard[1], mark + 1) and has(heard[2], mark + 1)
  end)
  local about = has(heard[1], mark)
  t:equal(about.thread, cnf._test.pid())
  t:ok(about.cpu >= 0 and about.time > 0)
  t:equal(listeners[1]:stats().lost, 0)
  listeners[1]:close()
  t:raises(function()
    bpf.trace()
  end, "takes a handler function, got nothing")
end)

test.case("maps without records, and handlers that are none, are refused", function(t)
  local object = loaded()
  local wrong = t:raises(function()
    object.maps.others:on_record(print)
  end, "EINVAL")
  t:equal(wrong.message, "hash maps have no records")
  t:raises(function()
    object.maps.events:on_record()
  end, "takes a handler function, got nothing")
  t:raises(function()
    object.maps.events:on_record({})
  end, "takes a handler function, got table")
  t:equal(
    t:raises(function()
      object.maps.events:on_record(print, { typ = "struct event" })
    end, "EINVAL").hint,
    'did you mean "type"?'
  )
  t:raises(function()
    object.maps.events:on_record(print, { buffer = 4096 })
  end, "a ring buffer has its size from its map")
  local file <close> = io.open("/sys/devices/system/cpu/possible")
  if file:read("l") == "0" then
    return -- one place is enough
  end
  local small = t:raises(function()
    bpf.compile({ source = SOURCE }, { max_entries = { perf = 1 } }).maps.perf:on_record(print)
  end, "EINVAL")
  t:ok(small.message:find("the map has 1 places and this machine %d+ processors"), small.message)
end)
