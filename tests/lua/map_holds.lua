--- Maps that hold programs, maps and devices, values without keys, and what belongs to a socket.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local link, netns, probe, test = cnf.link, cnf.netns, cnf.probe, cnf.test
local keys_of, source = require("keys"), require("source")

local SOURCE = [[
struct point { __s32 x, y; };
MAP(plain, HASH, 4, __u32, __u64);
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 4); __uint(key_size, 4);
  __uint(value_size, 4); } jumps SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP); __uint(max_entries, 4); __uint(key_size, 4);
  __uint(value_size, 4); } devices SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_DEVMAP_HASH); __uint(max_entries, 4); __uint(key_size, 4);
  __uint(value_size, 4); } device_hash SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_CPUMAP); __uint(max_entries, 1); __uint(key_size, 4);
  __uint(value_size, 4); } cpus SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 2);
  __type(value, __u32); } queue SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_STACK); __uint(max_entries, 2);
  __type(value, struct point); } stack SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_BLOOM_FILTER); __uint(max_entries, 100);
  __type(value, struct point); } bloom SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_SK_STORAGE); __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int); __type(value, struct point); } of_socket SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
  __type(value, __u32); } first SEC(".maps"), second SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
  __array(values, struct inner); } outer SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 2); __type(key, __u32);
  __array(values, struct inner); } slots SEC(".maps");

SEC("tc") int jump(struct __sk_buff *skb) { bpf_tail_call(skb, &jumps, skb->mark); return 100; }
SEC("tc") int seven(struct __sk_buff *skb) { return 7; }
SEC("tc") int eight(struct __sk_buff *skb) { return 8; }
SEC("tc") int through(struct __sk_buff *skb) {
  __u32 key = skb->mark, one = 1, *value;
  void *map = bpf_map_lookup_elem(&outer, &key);
  if (!map) return 100;
  value = bpf_map_lookup_elem(map, &one);
  return value ? *value : 101;
}
SEC("xdp") int forward(struct xdp_md *ctx) { return bpf_redirect_map(&devices, 0, XDP_PASS); }
SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }
]]

local object = source.once(SOURCE)

local FRAME = ("\0"):rep(64)

test.case("program arrays take programs", function(t)
  local jumps, p = object().maps.jumps, object().programs
  local function run(mark)
    return p.jump:test_run({ packet = FRAME, ctx = { mark = mark } }).retval
  end
  t:equal(run(1), 100)
  jumps:set(1, p.seven)
  t:equal(run(1), 7)
  jumps:set(1, p.eight)
  t:equal(run(1), 8)
  t:equal(jumps:get(1), p.eight)
  t:equal(jumps:get(2), nil)
  t:equal(jumps:set_many({ [1] = p.seven, [2] = p.eight }), 2)
  t:equal({ run(1), run(2) }, { 7, 8 })
  local set = {}
  for index, program in jumps:pairs() do
    set[index] = program.name
  end
  t:equal(set, { [1] = "seven", [2] = "eight" })
  t:equal(jumps:delete(1), true)
  t:equal(run(1), 100)
  t:raises(function()
    jumps:set(1, p.frames)
  end, "EINVAL")
  t:raises(function()
    jumps:set(1, 5)
  end, "prog_array maps take a Program, not 5")
  t:raises(function()
    object().maps.plain:set(1, p.seven)
  end, "EINVAL")
end)

test.case("maps of maps take maps", function(t)
  local m, p = object().maps, object().programs
  local function run(mark)
    return p.through:test_run({ packet = FRAME, ctx = { mark = mark } }).retval
  end
  t:equal(run(3), 100)
  m.outer:set(3, m.first)
  t:equal(run(3), 101)
  m.first:set(1, 11)
  m.second:set(1, 22)
  t:equal(run(3), 11)
  m.outer:set(3, m.second)
  t:equal(run(3), 22)
  t:equal(m.outer:get(3).id, m.second.id)
  t:equal(m.outer:get(3):get(1), 22)
  t:equal(m.outer:get(4), nil)
  m.outer:set(4, m.first, "noexist")
  t:raises(function()
    m.outer:set(4, m.second, "noexist")
  end, "EEXIST")
  t:equal(keys_of(m.outer), { 3, 4 })
  t:equal(m.outer:delete(3), true)
  t:equal(run(3), 100)
  m.slots:set(0, m.first)
  t:equal(m.slots:get(0).id, m.first.id)
  t:raises(function()
    m.outer:set(5, m.plain)
  end, "EINVAL")
  t:raises(function()
    m.outer:set(5, 5)
  end, "hash_of_maps maps take a Map, not 5")
end)

test.case("devmaps take links, of their own namespace", function(t)
  local m = object().maps
  local a, b, c = t:netns("a"), t:netns("b"), t:netns("c")
  local _, left = link.veth({
    name = "near",
    netns = a,
    address = "10.0.0.1/24",
    peer = { name = "left", netns = b },
  })
  local right, far = link.veth({
    name = "right",
    netns = b,
    peer = { name = "far", netns = c, address = "10.0.0.2/24" },
  })
  m.devices:set(0, right)
  m.device_hash:set(77, left)
  t:equal(m.devices:get(0), right.index)
  t:equal(m.device_hash:get(77), left.index)
  t:equal(m.devices:delete(0), true)
  t:equal(m.devices:get(0), nil)
  -- From left to right by the map, and back by a map of its own.
  m.devices:set_many({ [0] = right })
  local back = source.compile(SOURCE, { programs = { "forward" } })
  back.maps.devices:set(0, left)
  cnf.xdp.attach(left, object().programs.forward)
  cnf.xdp.attach(right, back.programs.forward)
  -- A veth takes redirected frames only when its other end runs XDP too.
  cnf.xdp.attach(far, object().programs.frames)
  cnf.xdp.attach(a:link("near"), object().programs.frames)
  t:equal(probe.ping(a, "10.0.0.2", { count = 3, interval = 0.01 }).received, 3)
  t:raises(function()
    m.devices:set(0, "right")
  end, "EINVAL")
  m.cpus:set(0, 64)
  t:equal(m.cpus:get(0), 64)
end)

test.case("queues and stacks", function(t)
  local queue, stack = object().maps.queue, object().maps.stack
  queue:push(1)
  queue:push(2)
  t:raises(function()
    queue:push(3)
  end, "E2BIG")
  t:equal({ queue:peek(), queue:pop(), queue:pop() }, { 1, 1, 2 })
  t:equal(queue:pop(), nil)
  t:equal(queue:peek(), nil)
  stack:push({ x = 1 })
  stack:push({ x = 2, y = 3 })
  t:equal(stack:pop(), { x = 2, y = 3 })
  t:equal(stack:peek(), { x = 1, y = 0 })
  stack:clear()
  t:equal(stack:pop(), nil)
  t:raises(function()
    object().maps.plain:push(1)
  end, "hash maps cannot do this")
  t:raises(function()
    queue:len()
  end, "EOPNOTSUPP")
end)

test.case("a bloom filter tells what may be there", function(t)
  local bloom = object().maps.bloom
  for i = 1, 20 do
    bloom:push({ x = i, y = -i })
  end
  local wrong = 0
  for i = 1, 20 do
    t:equal(bloom:peek({ x = i, y = -i }), true)
    wrong = wrong + (bloom:peek({ x = i, y = i }) and 1 or 0)
  end
  t:ok(wrong < 10, wrong)
  t:raises(function()
    bloom:peek()
  end, "asked for a value")
  t:raises(function()
    bloom:peek({ z = 1 })
  end, 'no field "z"')
  t:raises(function()
    bloom:pop()
  end)
end)

test.case("maps without keys say what they have instead", function(t)
  for name, hint in pairs({ queue = "m:pop", bloom = "m:peek%(value%)", ring = "m:on_record" }) do
    for _, method in ipairs({ "get", "delete", "set" }) do
      local map = object().maps[name]
      local problem = t:raises(function()
        map[method](map, 1, 1)
      end, "EINVAL")
      t:ok(problem.message:find("maps have no keys"), problem.message)
      t:ok(problem.hint:find(hint), problem.hint)
    end
  end
end)

test.case("socket storage takes a server, or a descriptor of this process, as key", function(t)
  local storage = object().maps.of_socket
  local list = netns.host():exec({ "ls", "-l", ("/proc/%d/fd"):format(cnf._test.pid()) }).stdout
  local server = probe.serve(t:netns("a"), { udp = 7 })
  for _, socket in ipairs({ tonumber(list:match("(%d+) %-> socket:")), server }) do
    t:equal(storage:get(socket), nil)
    storage:set(socket, { x = 4, y = -4 })
    t:equal(storage:get(socket), { x = 4, y = -4 })
    for _, method in ipairs({ "len", "pairs", "clear" }) do
      t:raises(function()
        storage[method](storage)
      end, "sk_storage maps cannot be listed")
    end
    t:equal(storage:delete(socket), true)
    t:equal(storage:delete(socket), false)
  end
  t:raises(function()
    storage:get(0x7fffffff)
  end, "EBADF")
  server:stop()
  t:raises(function()
    storage:get(server)
  end, "was stopped")
end)
