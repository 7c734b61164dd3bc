--- Objects that were not compiled here: by clang alone against libbpf's headers, by rustc with aya-ebpf, by a
--- distribution, loaded by bpftool.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local bpffs, pair, source = require("bpffs"), require("pair"), require("source")
local bpf, netns, packet, probe, test = cnf.bpf, cnf.netns, cnf.packet, cnf.probe, cnf.test

local host = netns.host()

--- Compiles as libbpf's documentation says; the path of the object, which goes with the case.
local function clang(t, name, flag)
  local object = os.tmpname()
  t:defer(function()
    os.remove(object)
  end)
  local machine = host:exec("uname -m").stdout:match("%S+")
  host:exec({
    "clang", "-g", "-O2", "-target", "bpf", "-I/usr/include/" .. machine .. "-linux-gnu",
    "-c", "tests/foreign/" .. name, "-o", object, flag,
  }, { timeout = 300 })
  return object
end

test.case("a tc program of clang and libbpf's headers", function(t)
  local o = bpf.load(clang(t, "flows.bpf.c"), { globals = { only_port = 53 } })
  local _, _, near = pair(t)
  bpf.attach(near, "egress", o.programs.count_flows)
  local ip = { src = "10.0.0.1", dst = "10.0.0.2" }
  local frames = {}
  for i, port in ipairs({ 53, 80, 53, 53 }) do
    frames[i] = packet.build({ ip = ip, udp = { dport = port }, payload = ("x"):rep(18) })
  end
  cnf._test.send_frames(near, frames)
  local key = { saddr = "10.0.0.1", daddr = "10.0.0.2", dport = 53, protocol = 17 }
  t:eventually(function()
    local stats = o.maps.flow_table:get(key)
    return stats and stats.packets == 3
  end)
  t:equal(o.maps.flow_table:get(key), { packets = 3, bytes = 180 })
  t:equal({ o.globals.seen, o.globals.only_port, #o.maps.flow_table }, { 3, 53, 1 })
  t:equal(o.maps.flow_table:info().key_type, "struct flow_key")
end)

test.case("a tracepoint with CO-RE and a ring buffer", function(t)
  t:requires("tracepoint", "btf", "ringbuf")
  local o = bpf.load(clang(t, "execs.bpf.c"))
  local seen = {}
  o.maps.events:on_record(function(event)
    seen[event.comm] = event
  end, { type = "struct event" })
  bpf.attach_tracing(o.programs.handle_exec)
  -- The shell starts `true` as its child.
  local shell = host:exec({ "bash", "-c", "echo $$; /bin/true; exit 0" })
  t:eventually(function()
    return seen["true"]
  end)
  t:equal(seen["true"].ppid, tonumber(shell.stdout))
  t:ok(seen["true"].pid > 0)
end)

--- An object of Debian's xdp-tools.
local function distributed(t, name)
  local found = io.popen("ls /usr/lib/*/bpf/" .. name .. " 2>/dev/null"):read("l")
  return found or t:skip("xdp-tools is not installed")
end

test.case("xdp-filter of xdp-tools drops what its map names", function(t)
  local o = bpf.load(distributed(t, "xdpfilt_alw_ip.o"))
  local a, b = pair(t)
  cnf.xdp.attach(b:link("w0"), o.programs.xdpfilt_alw_ip)
  t:equal(probe.ping(a, "10.0.0.2", { count = 2, interval = 0.05 }).received, 2)
  -- Keys are declared as __u32 and are addresses in network order; 1 is MAP_FLAG_SRC, hits are counted in the bits above.
  o.maps.filter_ipv4:set(string.unpack("=I4", "\10\0\0\1"), 1)
  t:equal(probe.ping(a, "10.0.0.2", { count = 2, interval = 0.05, timeout = 0.3 }).received, 0)
  local dropped, passed = o.maps.xdp_stats_map:get(1), o.maps.xdp_stats_map:get(2)
  local function total(cpus)
    local packets = 0
    for _, each in ipairs(cpus) do
      packets = packets + each.rx_packets
    end
    return packets
  end
  t:equal(o.maps.xdp_stats_map:info().value_type, "struct xdp_stats_record")
  t:ok(total(dropped) >= 2 and total(passed) >= 2, total(dropped))
end)

test.case("maps that are declared to be pinned by name are shared through their pins", function(t)
  local mount = bpffs(t)
  local object = clang(t, "flows.bpf.c")
  local first = bpf.load(object, { pins = mount })
  t:equal(bpf.pinned(mount .. "/flow_table"), first.maps.flow_table)
  local frame = packet.build({ ip = { src = "10.0.0.1", dst = "10.0.0.2" }, udp = { dport = 7 } })
  local key = { saddr = "10.0.0.1", daddr = "10.0.0.2", dport = 7, protocol = 17 }
  first.programs.count_flows:test_run({ packet = frame })
  local second = bpf.load(object, { pins = mount })
  t:equal(second.maps.flow_table, first.maps.flow_table)
  second.programs.count_flows:test_run({ packet = frame })
  t:equal(first.maps.flow_table:get(key).packets, 2)
  local own = bpf.load(object)
  t:ok(own.maps.flow_table ~= first.maps.flow_table, "without a folder it is the object's own")
  local given = bpf.load(object, { pins = mount, maps = { flow_table = own.maps.flow_table } })
  t:equal(given.maps.flow_table, own.maps.flow_table)
  -- The other way round: what bpftool loads by the same declaration.
  os.remove(mount .. "/flow_table")
  if os.execute("command -v bpftool >/dev/null") then
    bpf.load(object, { pins = mount }).programs.count_flows:test_run({ packet = frame })
    local dumped = host:exec(("bpftool -j map dump pinned %s/flow_table"):format(mount)).stdout
    t:ok(dumped:find('"packets":1', 1, true), dumped)
  end
end)

test.case("a pin of another type, or of none, is no map of the object", function(t)
  local mount = bpffs(t)
  local object = clang(t, "flows.bpf.c")
  local other = source.compile([[
MAP(m, ARRAY, 1, __u32, __u64);
SEC("tc") int p(struct __sk_buff *skb) { return 0; }
]])
  other.maps.m:pin(mount .. "/flow_table")
  local e = t:raises(function()
    bpf.load(object, { pins = mount })
  end, "EINVAL")
  t:ok(e.message:find("type is lru_hash in the source and array in the map", 1, true), e.message)
  t:ok(e.hint:find(mount .. "/flow_table is of another object", 1, true), e.hint)
  os.remove(mount .. "/flow_table")
  other.programs.p:pin(mount .. "/flow_table")
  t:raises(function()
    bpf.load(object, { pins = mount })
  end, "a program is pinned there, not a map")
  os.remove(mount .. "/flow_table")
  t:raises(function()
    bpf.load(object, { pins = mount .. "/nowhere" })
  end, "ENOENT")
  -- Refused after its maps were made: nothing of it stays.
  t:raises(function()
    bpf.load(object, { pins = mount, globals = { only_prt = 1 } })
  end, "ENOENT")
  t:raises(function()
    bpf.load(object, { pins = "/tmp" })
  end, "the path is not on a bpf file system")
  t:raises(function()
    bpf.pinned(mount .. "/flow_table")
  end, "nothing is pinned there")
end)

test.case("an XDP program of aya-ebpf", function(t)
  local o = bpf.load("tests/foreign/aya/sources.elf", { globals = { DROPPED_PROTOCOL = 1 } })
  local a, b, near = pair(t)
  local far = b:link("w0")
  cnf.xdp.attach(far, o.programs.count_sources)
  t:equal(probe.ping(a, "10.0.0.2", { count = 3, interval = 0.01, timeout = 0.2 }).received, 0)
  local ip = { src = "10.9.8.7", dst = "10.0.0.2" }
  cnf._test.send_frames(near, { packet.build({ ip = ip, udp = {}, payload = ("x"):rep(58) }) })
  -- Its maps are declared without types: four bytes are a number, or bytes; sixteen are bytes.
  local function seen(address)
    local value = o.maps.SOURCES:get(string.pack("BBBB", address:match("(%d+)%.(%d+)%.(%d+)%.(%d+)")))
    return value and { string.unpack("=I8I8", value) }
  end
  t:eventually(function()
    return seen("10.9.8.7")
  end)
  t:equal({ table.unpack(seen("10.9.8.7"), 1, 2) }, { 1, 100 })
  t:equal({ table.unpack(seen("10.0.0.1"), 1, 2) }, { 3, 3 * 98 })
  t:ok(o.maps.TOTAL:get(0):sum() >= 4)
  t:equal(o.globals.DROPPED_PROTOCOL, 1)
  local other = bpf.load("tests/foreign/aya/sources.elf")
  local echo = packet.build({ ip = ip, icmp = {} })
  t:equal(o.programs.count_sources:test_run({ packet = echo }).verdict, "drop")
  t:equal(other.programs.count_sources:test_run({ packet = echo }).verdict, "pass")
end)

test.case("every XDP object of xdp-tools loads", function(t)
  distributed(t, "xdp-dispatcher.o")
  local count = 0
  for path in io.popen("ls /usr/lib/*/bpf/x*.o"):lines() do
    -- xdpdump's other half traces a program, which is named when it is loaded.
    if not path:find("xdpdump_bpf.o", 1, true) then
      local o = bpf.load(path)
      t:ok(next(o.programs), path)
      count = count + 1
    end
  end
  t:ok(count >= 3, count)
end)

test.case("what bpftool loads and pins is opened here", function(t)
  -- bpftool pins maps where it is told, or where their declarations say, and refuses both.
  local object = clang(t, "flows.bpf.c", "-DUNPINNED")
  -- libbpf turns dots in paths of pins into underscores.
  local mount = os.tmpname() .. "_bpffs"
  os.execute("mkdir " .. mount)
  t:defer(function()
    os.execute(("umount %s; rmdir %s"):format(mount, mount))
  end)
  if not os.execute("mount -t bpf bpffs " .. mount) then
    t:skip("no bpf file system can be mounted")
  end
  if not os.execute("command -v bpftool >/dev/null") then
    t:skip("bpftool is not installed")
  end
  t:ok(os.execute(("bpftool prog load %s %s/count type classifier pinmaps %s"):format(object, mount, mount)))
  local program = bpf.pinned(mount .. "/count", "program")
  local flows = bpf.pinned(mount .. "/flow_table", "map")
  t:equal({ program.name, program.type }, { "count_flows", "tc" })
  local frame = packet.build({ ip = { src = "10.0.0.1", dst = "10.0.0.2" }, udp = { dport = 7 } })
  t:equal(program:test_run({ packet = frame, repeat_count = 5 }).verdict, "next")
  local key = { saddr = "10.0.0.1", daddr = "10.0.0.2", dport = 7, protocol = 17 }
  t:equal(flows:get(key), { packets = 5, bytes = 5 * #frame })
  -- And an object of ours goes on with bpftool's map.
  local mine = bpf.load(object, { maps = { flow_table = flows } })
  mine.programs.count_flows:test_run({ packet = frame })
  t:equal(flows:get(key).packets, 6)
end)
