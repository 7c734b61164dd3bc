--- Faults: what is lost, copied and changed, in which direction, for how long, and again from its seed.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local hooks, pair, source = require("hooks"), require("pair"), require("source")
local bpf, chaos, link, netns, packet, policy, probe, test =
  cnf.bpf, cnf.chaos, cnf.link, cnf.netns, cnf.packet, cnf.policy, cnf.probe, cnf.test

local function ping(ns, count, options)
  options = options or {}
  return probe.ping(ns, options.address or "10.0.0.2", {
    count = count,
    interval = options.interval or 0.002,
    timeout = options.timeout or 0.1,
  }).received
end

local ICMP = { proto = "icmp" }

test.case("a blackhole takes what it matches, and gives it back when healed", function(t)
  local a, _, near = pair(t)
  local fault = chaos.inject(near, { blackhole = true, match = ICMP })
  t:equal(ping(a, 5), 0)
  -- IPv6's echo is another protocol.
  t:equal(ping(a, 5, { address = "fd00::2" }), 5)
  local info = fault:info()
  t:equal(info.matched, 5)
  t:equal(info.lost, 5)
  t:equal(info.active, true)
  t:equal(tostring(fault), "Fault(v0, egress)")
  fault:heal()
  t:equal(ping(a, 5), 5)
  t:equal(fault:info().active, false)
  t:equal(fault:info().lost, 5)
  fault:heal()
end)

test.case("each direction by itself, and both", function(t)
  local a, b, near = pair(t)
  for _, direction in ipairs({ "ingress", "egress" }) do
    local fault = chaos.inject(near, { direction = direction, blackhole = true, match = ICMP })
    t:equal(ping(a, 3), 0, direction)
    t:equal(fault:info().lost, 3)
    fault:heal()
  end
  local lost = chaos.inject(near, { direction = "both", loss = { every = 2 }, match = ICMP })
  -- Request, reply, request, reply: every second one is a reply.
  t:equal(ping(a, 6, { interval = 0.02 }), 0)
  t:equal(lost:info().matched, 12)
  t:equal(lost:info().lost, 6)
  lost:heal()
  t:equal(ping(b, 2, { address = "10.0.0.1" }), 2)
  t:equal(ping(a, 2), 2)
end)

test.case("every n-th, exactly", function(t)
  local a, _, near = pair(t)
  local fault = chaos.inject(near, { loss = { every = 5 }, match = ICMP })
  t:equal(ping(a, 50), 40)
  t:equal(fault:info().lost, 10)
end)

--- Which of `count` pings came back, as a text of ones and zeros.
local function fates(a, count)
  local fate = {}
  for i = 1, count do
    fate[i] = ping(a, 1, { timeout = 0.02 })
  end
  return table.concat(fate)
end

test.case("a seed replays its losses, another one does not", function(t)
  local a, _, near = pair(t)
  local function run(seed)
    local fault = chaos.inject(near, { loss = "50%", seed = seed, match = ICMP })
    local fate = fates(a, 40)
    t:equal(fault:info().seed, seed)
    t:equal(select(2, fate:gsub("0", "")), fault:info().lost)
    fault:heal()
    return fate
  end
  local first = run(7)
  t:ok(first:find("1", 1, true) and first:find("0", 1, true), first)
  t:equal(run(7), first)
  t:ok(run(8) ~= first)
  -- One that was drawn can be asked for and replayed as well.
  local drawn = chaos.inject(near, { loss = "50%", match = ICMP })
  local fate, seed = fates(a, 40), drawn:info().seed
  drawn:heal()
  t:equal(run(seed), fate)
end)

test.case("the share is the share", function(t)
  local a, _, near = pair(t)
  local fault = chaos.inject(near, { loss = "20%", seed = 1, match = ICMP })
  ping(a, 2000, { interval = 0.0002, timeout = 0.3 })
  local info = fault:info()
  t:equal(info.matched, 2000)
  -- Five standard deviations of a binomial distribution.
  t:ok(math.abs(info.lost - 400) < 5 * math.sqrt(2000 * 0.2 * 0.8), tostring(info.lost))
end)

--- The fates of `count` packets, by the program itself on a packet that nobody sends.
local function drops(fault, count)
  local program = fault._.object.programs.chaos_egress
  local frame = ("\2\0\0\0\0\1\2\0\0\0\0\2\8\0"):rep(1)
    .. "\x45\0\0\x1c\0\0\0\0\x40\1\0\0\10\0\0\1\10\0\0\2\8\0\xf7\xff\0\0\0\0"
    .. ("\0"):rep(20)
  local fate = {}
  for i = 1, count do
    fate[i] = program:test_run({ packet = frame }).retval == 2 and "x" or "."
  end
  return table.concat(fate)
end

test.case("bursts by Gilbert and Elliott", function(t)
  local _, _, near = pair(t)
  local fault = chaos.inject(near, {
    gemodel = { p = "5%", r = "25%", loss_bad = 1, loss_good = 0 },
    seed = 3,
    match = ICMP,
  })
  local fate = drops(fault, 4000)
  local lost, bursts = select(2, fate:gsub("x", "")), select(2, fate:gsub("x+", ""))
  -- In the bad state p / (p + r) of the time, for 1 / r packets at a time.
  t:ok(math.abs(lost / 4000 - 0.05 / 0.30) < 0.04, ("%d lost"):format(lost))
  t:ok(math.abs(lost / bursts - 4) < 0.8, ("%g packets a burst"):format(lost / bursts))
  t:equal(fault:info().lost, lost)
  -- Independent losses of the same share stand alone mostly.
  local alone = drops(chaos.inject(near, { loss = lost / 4000, seed = 3, match = ICMP }), 4000)
  local mean = select(2, alone:gsub("x", "")) / select(2, alone:gsub("x+", ""))
  t:ok(mean < 1.5, ("%g packets a burst"):format(mean))
end)

test.case("a seed replays bursts, corruption and duplicates", function(t)
  local _, _, near, far = pair(t)
  --- What 60 numbered datagrams arrive as, in order: each one's payload.
  local function arrived(options)
    local o = source.compile([[
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/udp.h>
struct seen { __u8 bytes[8]; };
struct { __uint(type, BPF_MAP_TYPE_QUEUE); __uint(max_entries, 256); __type(value, struct seen); } arrivals SEC(".maps");
SEC("tc") int note(struct __sk_buff *skb) {
  struct seen seen;
  if (skb->protocol != __builtin_bswap16(ETH_P_IP) || skb->len < 60) return -1;
  if (!bpf_skb_load_bytes(skb, ETH_HLEN + 20 + 8, &seen, sizeof(seen))) bpf_map_push_elem(&arrivals, &seen, 0);
  return -1;
}]])
    local noted = bpf.attach(far, "ingress", o.programs.note)
    options.match = { proto = "udp" }
    local fault = chaos.inject(near, options)
    local frames = {}
    for i = 1, 60 do
      frames[i] = packet.build({
        ip = { src = "10.0.0.1", dst = "10.0.0.2", df = true },
        udp = { dport = 7, checksum = 0 },
        payload = ("%-18d"):format(i),
      })
    end
    cnf._test.send_frames(near, frames)
    local all = {}
    t:eventually(function()
      local info = fault:info()
      local value = o.maps.arrivals:pop()
      while value do
        all[#all + 1] = string.char(table.unpack(value.bytes))
        value = o.maps.arrivals:pop()
      end
      return info.matched == 60 and #all == 60 - info.lost + info.duplicated
    end)
    fault:heal()
    noted:detach()
    return table.concat(all, ",")
  end
  local plain = arrived({ loss = 0 })
  for _, options in ipairs({
    { gemodel = { p = "20%", r = "40%", loss_bad = 1, loss_good = 0 } },
    { duplicate = "30%" },
    { corrupt = "80%" },
    { loss = "30%", duplicate = "30%" },
  }) do
    local function run(seed)
      local copy = { seed = seed }
      for key, value in pairs(options) do
        copy[key] = value
      end
      return arrived(copy)
    end
    local first = run(11)
    local what = next(options)
    t:ok(first ~= plain, what)
    t:equal(run(11), first, what)
    t:ok(run(12) ~= first, what)
  end
end)

--- Received packets of `l`, when they have stopped coming.
local function received(l)
  return l:stats().rx.packets
end

for _, direction in ipairs({ "egress", "ingress" }) do
  test.case("duplicates, once each: " .. direction, function(t)
    local a, _, near, far = pair(t)
    local on = direction == "egress" and near or far
    t:equal(ping(a, 1), 1)
    -- Behind it, a second fault counts what comes: it loses nothing.
    local fault = chaos.inject(on, { direction = direction, duplicate = 1, match = ICMP })
    local counter = chaos.inject(on, { direction = direction, loss = 0, match = ICMP })
    local first = received(far)
    t:equal(ping(a, 10, { interval = 0.01 }), 10)
    t:equal(fault:info().matched, 10)
    t:equal(fault:info().duplicated, 10)
    t:eventually(function()
      return counter:info().matched == 20
    end)
    if direction == "egress" then
      t:ok(received(far) - first >= 20)
    end
  end)
end

test.case("two duplicating faults make four of one", function(t)
  local a, _, near = pair(t)
  t:equal(ping(a, 1), 1)
  local one = chaos.inject(near, { duplicate = 1, match = ICMP })
  local two = chaos.inject(near, { duplicate = 1, match = ICMP })
  local counter = chaos.inject(near, { loss = 0, match = ICMP })
  t:equal(ping(a, 5, { interval = 0.01 }), 5)
  t:equal(one:info().matched, 5)
  t:equal(two:info().matched, 10)
  t:equal(counter:info().matched, 20)
end)

test.case("corruption is seen by whoever looks at a checksum, and by the payload", function(t)
  local a, b, near = pair(t)
  probe.serve(b, { udp = 7 })
  local fault = chaos.inject(near, { corrupt = 1, match = ICMP })
  t:equal(ping(a, 10), 0)
  t:equal(fault:info().corrupted, 10)
  fault:heal()
  t:equal(ping(a, 3), 3)
  -- Echoed as it arrived: one bit is another, wherever it hit the payload and not the header.
  fault = chaos.inject(near, { corrupt = 1, seed = 12, match = { proto = "udp", dport = 7 } })
  local sent, seen = ("x"):rep(1000), false
  for _ = 1, 5 do
    local ok, answer = pcall(probe.udp, a, "10.0.0.2:7", { send = sent, timeout = 0.1 })
    if ok then
      t:equal(#answer.reply, #sent)
      local others = select(2, answer.reply:gsub("[^x]", ""))
      t:ok(others <= 1)
      seen = seen or others == 1
    end
  end
  t:ok(seen, "a flipped bit arrives")
  t:equal(fault:info().corrupted, 5)
end)

test.case("matches by address, protocol and port", function(t)
  local a, b, near = pair(t)
  near:add_address("10.0.0.9/24")
  probe.serve(b, { udp = 7, reply = "ok" })
  probe.serve(b, { udp = 8, reply = "ok" })
  local function answered(address, source)
    return (
      pcall(probe.udp, a, address, { source = source, timeout = 0.1 })
    )
  end
  for _, row in ipairs({
    { { dport = 7 }, false, true, false, false },
    { { port = 7, proto = "udp" }, false, true, false, false },
    { { sport = 7 }, true, true, true, true },
    { { proto = "tcp", port = 7 }, true, true, true, true },
    { { from = "10.0.0.9" }, true, true, false, true },
    { { from = "10.0.0.8/30", to = "10.0.0.0/24" }, true, true, false, true },
    { { to = "10.0.0.0/24" }, false, false, false, true },
    { { to = "fd00::/64" }, true, true, true, false },
    { { to = "fd00::2", dport = 7 }, true, true, true, false },
  }) do
    local match, seven, eight, other, six = table.unpack(row)
    local fault = chaos.inject(near, { blackhole = true, match = match })
    t:equal({
      answered("10.0.0.2:7"),
      answered("10.0.0.2:8"),
      answered("10.0.0.2:7", "10.0.0.9"),
      answered("[fd00::2]:7"),
    }, { seven, eight, other, six }, cnf._show.value(match))
    fault:heal()
  end
end)

test.case("a duration ends it, and the program goes", function(t)
  local a, _, near = pair(t)
  local duration = os.getenv("CNF_SLOW") and 3 or 0.3
  local fault = chaos.inject(near, { blackhole = true, match = ICMP, duration = duration })
  local info = fault:info()
  t:ok(info.active and info.remaining > 0 and info.remaining <= duration)
  t:equal(ping(a, 2), 0)
  t:eventually(function()
    return ping(a, 1) == 1
  end)
  t:eventually(function()
    return not fault:info().active
  end)
  t:equal(fault:info().remaining, 0)
  local hook = bpf.has("tcx").available and cnf.tcx or cnf.tc
  t:eventually(function()
    return #hook.query(near, "egress").programs == 0
  end)
end)

test.case("the kernel keeps the deadline while Lua is busy", function(t)
  local a, b, near = pair(t)
  -- An emulated machine takes its time.
  local unit = os.getenv("CNF_SLOW") and 0.5 or 0.1
  local server = probe.serve(b, { udp = 7, reply = "ok" })
  -- A client outside of this program: nothing here runs meanwhile.
  local send =
    "echo ready; read; for i in {1..10}; do echo x > /dev/udp/10.0.0.2/7; sleep %g; done"
  local child = a:spawn({ "bash", "-c", send:format(unit) })
  t:equal(child:lines()(), "ready")
  local fault =
    chaos.inject(near, { blackhole = true, match = { proto = "udp" }, duration = 3 * unit })
  child:write("go\n")
  local deadline = cnf._test.now() + 12 * unit
  while cnf._test.now() < deadline do
  end
  child:wait()
  local lost = fault:info().lost
  t:ok(lost >= 1 and lost <= 5, ("%d of 10 were lost"):format(lost))
  t:eventually(function()
    return server:stats().requests == 10 - lost
  end)
end)

test.case("heal_all heals all", function(t)
  local a, _, near, far = pair(t)
  chaos.inject(near, { blackhole = true })
  chaos.inject(near, { loss = 1, direction = "ingress" })
  chaos.inject(far, { loss = "100%", direction = "both", duration = "1m" })
  t:equal(ping(a, 2), 0)
  chaos.heal_all()
  -- The address may have to be resolved anew.
  t:eventually(function()
    return ping(a, 2) == 2
  end)
  chaos.heal_all()
end)

test.case("a killed script leaves no fault behind", function(t)
  local a = pair(t)
  t:equal(ping(a, 1), 1)
  local child = netns.host():spawn({
    "/proc/self/exe",
    "-e",
    ('chaos.inject(netns.get("%s"):link("v0"), {blackhole = true}) print("ready")'):format(a.name),
  })
  t:equal(child:lines()(), "ready")
  t:equal(ping(a, 2), 0)
  child:kill("KILL")
  child:wait()
  t:eventually(function()
    return ping(a, 1) == 1
  end)
  -- A clsact filter may stay; it does nothing.
  t:equal(ping(a, 3), 3)
end)

test.case("a deadline holds when the script that set it is stopped", function(t)
  local a = pair(t)
  t:equal(ping(a, 1), 1)
  local duration = os.getenv("CNF_SLOW") and 4 or 1
  local child = netns.host():spawn({
    "/proc/self/exe",
    "-e",
    ([[
      chaos.inject(netns.get("%s"):link("v0"), {blackhole = true, duration = %g})
      print("ready")
    ]]):format(a.name, duration),
  })
  t:equal(child:lines()(), "ready")
  -- Nothing of it runs any more: the kernel alone knows when it is over.
  child:kill("STOP")
  t:equal(ping(a, 1), 0)
  t:eventually(function()
    return ping(a, 1) == 1
  end, { within = 4 * duration })
  child:kill("KILL")
  child:wait()
  t:equal(ping(a, 2), 2)
end)

test.case("faults stand before other programs, the router last", function(t)
  local a, _, near = pair(t)
  local router = policy.router({ attach = { { near, "egress" } } })
  local own = source.compile('SEC("tc") int own(struct __sk_buff *skb) { return -1; }')
  bpf.attach(near, "egress", own.programs.own, { first = true })
  local fault = chaos.inject(near, { loss = 0 })
  chaos.inject(near, { loss = 0 })
  local hook = bpf.has("tcx").available and cnf.tcx or cnf.tc
  t:equal(hooks.names(hook.query(near, "egress")), { "chaos_egress", "chaos_egress", "own", "egress" })
  -- What a fault takes, the router does not see.
  fault:heal()
  chaos.inject(near, { blackhole = true, match = ICMP })
  local before = router:stats().total.unmatched.packets
  t:equal(ping(a, 3), 0)
  t:equal(router:stats().total.unmatched.packets, before)
end)

test.case("on a device without a link header", function(t)
  local a, b = pair(t)
  local function tunnel(ns, l, remote, address)
    return link.ipip({
      name = "tunnel",
      netns = ns,
      ["local"] = l,
      remote = remote,
      address = address,
    })
  end
  local ok, left = pcall(tunnel, a, "10.0.0.1", "10.0.0.2", "10.9.0.1/24")
  if not ok then
    t:skip("this kernel has no ipip")
  end
  tunnel(b, "10.0.0.2", "10.0.0.1", "10.9.0.2/24")
  t:equal(ping(a, 2, { address = "10.9.0.2" }), 2)
  local fault = chaos.inject(left, { blackhole = true, match = { to = "10.9.0.2", proto = "icmp" } })
  t:equal(ping(a, 3, { address = "10.9.0.2" }), 0)
  t:equal(fault:info().lost, 3)
end)

test.case("what is refused", function(t)
  local _, _, near = pair(t)
  for _, row in ipairs({
    { {}, "nothing to inject" },
    { { loss = "5%", blackhole = true }, "both say what is lost" },
    { { delay = "10ms" }, "delay is not there yet" },
    { { los = "5%" }, 'unknown option "los"' },
    { { loss = "5%", match = { frm = "10.0.0.1" } }, 'unknown option "frm"' },
    { { loss = 2 }, "is not a share" },
    { { loss = { every = 0 } }, "every must be 1 or more" },
    { { loss = { each = 3 } }, "EINVAL" },
    { { gemodel = {} }, "p is missing" },
    { { loss = 1, direction = "out" }, "direction must be" },
    { { loss = 1, seed = -1 }, "seed must be 0 or more" },
    { { loss = 1, duration = "soon" }, "not a duration" },
    { { loss = 1, match = { from = "10.0.0.1/24" } }, "is not a network" },
    { { loss = 1, match = { from = "10.0.0.0/24", to = "fd00::/64" } }, "different families" },
  }) do
    t:raises(function()
      chaos.inject(near, row[1])
    end, row[2])
  end
  t:raises(function()
    chaos.inject("near", { loss = 1 })
  end, "link must be a Link")
  near:delete()
  t:raises(function()
    chaos.inject(near, { loss = 1 })
  end, "ENODEV")
end)
