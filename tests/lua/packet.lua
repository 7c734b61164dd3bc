--- Packets: what is built is what the kernel takes and what is read again; bad input.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local pair = require("pair")
local packet, test = cnf.packet, cnf.test

local V4 = { src = "10.0.0.1", dst = "10.0.0.2" }
local V6 = { src = "fd00::1", dst = "fd00::2" }

--- The fields of `wanted`, and of tables in it, are in `got`.
local function has(t, got, wanted, path)
  for key, value in pairs(wanted) do
    local here = path .. "." .. key
    if type(value) == "table" then
      t:ok(type(got[key]) == "table", here)
      has(t, got[key], value, here)
    else
      t:equal(got[key], value, here)
    end
  end
end

local ROUND_TRIPS = {
  udp = {
    eth = { src = "02:00:00:00:00:0a", dst = "02:00:00:00:00:0b", type = 0x0800 },
    ip = {
      src = "10.0.0.1",
      dst = "10.0.0.2",
      ttl = 3,
      tos = 0xb8,
      id = 77,
      df = true,
      proto = "udp",
    },
    udp = { sport = 1000, dport = 53 },
    payload = "hello",
  },
  ["tcp over IPv6"] = {
    ip6 = {
      src = "fd00::1",
      dst = "fd00::2",
      hop_limit = 9,
      tclass = 3,
      flow_label = 0xabcde,
      proto = "tcp",
    },
    tcp = {
      sport = 1,
      dport = 2,
      seq = 2 ^ 32 - 1,
      ack = 5,
      flags = { syn = true, ack = true },
      window = 7,
    },
    payload = "",
  },
  ["tags"] = {
    eth = { type = 0x88a8 },
    vlan = {
      id = 10,
      priority = 5,
      dei = true,
      type = "802.1ad",
      inner = { id = 20, type = "802.1q" },
    },
    ip = V4,
    icmp = { type = "echo-request", id = 3, seq = 4 },
    payload = "odd",
  },
  ["icmp errors"] = {
    ip = V4,
    icmp = { type = "destination-unreachable", code = 4, mtu = 1400 },
    payload = ("x"):rep(28),
  },
  ["icmpv6"] = {
    ip6 = V6,
    icmp = { type = "packet-too-big", mtu = 100000 },
    payload = ("x"):rep(48),
  },
  ["arp"] = { arp = {
    op = "reply",
    src = "10.0.0.1",
    dst = "10.0.0.2",
    dst_mac = "02:00:00:00:00:02",
  } },
  ["another protocol"] = {
    ip = { src = "10.0.0.1", dst = "10.0.0.2", proto = 200 },
    payload = "raw",
  },
  ["fragment"] = {
    ip = { src = "10.0.0.1", dst = "10.0.0.2", proto = "udp", offset = 1480, mf = true },
    payload = "rest",
  },
  ["nothing above"] = { eth = { type = 0x1234 }, payload = "bytes" },
}
for name, headers in pairs(ROUND_TRIPS) do
  test.case("read as it was built: " .. name, function(t)
    local bytes = packet.build(headers)
    local read = packet.decode(bytes)
    has(t, read, headers, name)
    t:equal(read.length, #bytes)
    t:equal(read.problem, nil)
    for _, layer in ipairs({ "ip", "udp", "tcp", "icmp" }) do
      if read[layer] and not read.ip6 then
        t:equal(read[layer].checksum_ok, true, layer)
      end
    end
    -- What was read builds the same bytes.
    for _, layer in ipairs({ "ip", "ip6", "udp", "tcp", "icmp" }) do
      if read[layer] then
        read[layer].length, read[layer].checksum_ok, read[layer].fragment = nil, nil, nil
      end
    end
    read.length = nil
    t:equal(packet.build(read), bytes)
  end)
end

test.case("words mean the same for both families", function(t)
  local read = packet.decode(packet.build({
    ip = { src = "fd00::1", dst = "fd00::2", ttl = 7, tos = 4 },
    udp = {},
  }))
  t:equal({
    read.ip6.hop_limit,
    read.ip6.tclass,
    read.ip6.proto,
    read.udp.checksum_ok,
  }, { 7, 4, "udp", true })
  t:equal({ read.udp.sport, read.udp.dport }, { 49152, 9 })
  t:equal(packet.decode(packet.build({ ip6 = V6, icmp = {} })).icmp.type, "echo-request")
  t:equal(packet.decode(packet.build({ ip = V4, tcp = {} })).tcp.flags, { syn = true })
  t:equal(packet.decode(packet.build({
    ip = V4,
    tcp = { flags = "fin, ack" },
  })).tcp.flags, { fin = true, ack = true })
  t:equal(packet.decode(packet.build({
    ip = V4,
    tcp = { flags = { "rst" } },
  })).tcp.flags, { rst = true })
  t:equal(packet.decode(packet.build({ vlan = 7, ip = V4 })).vlan.id, 7)
  local bare = packet.build({ eth = false, ip = V4, udp = {}, payload = "x" })
  t:equal(#bare, 29)
  t:equal(packet.decode(bare, { first = "ip" }).payload, "x")
end)

test.case("packets that are cut off are read as far as they go", function(t)
  local whole = packet.build({ ip = V4, udp = {}, payload = ("x"):rep(40) })
  local short = packet.decode(whole:sub(1, 50))
  t:equal({ short.udp.dport, short.payload, short.udp.checksum_ok }, { 9, ("x"):rep(8), nil })
  t:equal(short.problem, "the packet is cut off")
  local header = packet.decode(whole:sub(1, 36))
  t:equal(header.udp, nil)
  t:ok(header.problem and header.ip.dst == "10.0.0.2", header.problem)
  for length = 14, #whole - 1 do
    t:ok(packet.decode(whole:sub(1, length)).problem, length)
  end
end)

test.case("any bytes are read, or refused", function(t)
  local seed = 11
  local function random(limit)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed // 65536 % limit
  end
  local start = packet.build({
    vlan = { id = 1, inner = 2 },
    ip6 = V6,
    tcp = { options = "abcd" },
    payload = "abc",
  })
  for _ = 1, 2000 do
    local bytes = { start:byte(1, -1) }
    for _ = 1, 1 + random(6) do
      bytes[1 + random(#bytes)] = random(256)
    end
    local changed = string.char(table.unpack(bytes, 1, 1 + random(#bytes)))
    for _, first in ipairs({ "eth", "ip" }) do
      local ok, e = pcall(packet.decode, changed, { first = first })
      t:ok(ok or e.code == "EINVAL", tostring(e))
    end
  end
end)

--- The numbers of /proc/net/snmp or snmp6 of a namespace by name: "Udp.InCsumErrors", "Udp6InCsumErrors".
local function counters(ns)
  local found, names = {}, {}
  for line in ns:exec("cat /proc/net/snmp /proc/net/snmp6").stdout:gmatch("[^\n]+") do
    local proto, rest = line:match("^(%w+): (.*)$")
    if proto and not names[proto] then
      names[proto] = {}
      for name in rest:gmatch("%S+") do
        table.insert(names[proto], name)
      end
    elseif proto then
      local i = 0
      for value in rest:gmatch("%S+") do
        i = i + 1
        found[proto .. "." .. names[proto][i]] = tonumber(value)
      end
    else
      local name, value = line:match("^(%S+)%s+(%d+)$")
      found[name] = tonumber(value)
    end
  end
  return found
end

local TAKEN = {
  { "Udp.NoPorts", { ip = V4, udp = {}, payload = "odd" } },
  { "Udp.InCsumErrors", { ip = V4, udp = { checksum = 1 }, payload = "odd" } },
  { "Udp.NoPorts", { ip = V4, udp = { checksum = 0 }, payload = "none" } },
  { "Tcp.OutRsts", { ip = V4, tcp = {}, payload = "" } },
  { "Tcp.InCsumErrors", { ip = V4, tcp = { checksum = 1 } } },
  { "Icmp.InEchos", { ip = V4, icmp = {}, payload = "abc" } },
  { "Icmp.InCsumErrors", { ip = V4, icmp = { checksum = 1 } } },
  { "Ip.InHdrErrors", { ip = { src = "10.0.0.1", dst = "10.0.0.2", checksum = 1 }, udp = {} } },
  { "Udp6NoPorts", { ip6 = V6, udp = {}, payload = "odd" } },
  { "Udp6InCsumErrors", { ip6 = V6, udp = { checksum = 1 } } },
  { "Icmp6InEchos", { ip6 = V6, icmp = {}, payload = "abc" } },
  { "Icmp6InCsumErrors", { ip6 = V6, icmp = { checksum = 1 } } },
  { "Icmp6InNeighborSolicits", {
    ip6 = { src = "fd00::1", dst = "fd00::2", hop_limit = 255 },
    icmp = { type = "neighbour-solicitation" },
    payload = ("\xfd" .. ("\0"):rep(14) .. "\2"),
  } },
}
test.case("the kernel takes what is right, and counts what is wrong", function(t)
  local _, b, near = pair(t)
  local source, target = near:info().mac, near:peer():info().mac
  for _, case in ipairs(TAKEN) do
    local before = counters(b)[case[1]]
    t:ok(before, case[1])
    local headers = { eth = { src = source, dst = target } }
    for word, value in pairs(case[2]) do
      headers[word] = value
    end
    cnf._test.send_frames(near, { packet.build(headers) })
    t:eventually(function()
      return counters(b)[case[1]] == before + 1
    end)
  end
end)

local WRONG = {
  { {}, "takes a table of options, got 5", 5 },
  { { eth = { src = "nothing" } }, "src must be a MAC address" },
  { { vlan = 4096 }, "the vlan id must be from 0 to 4095, got 4096" },
  { { vlan = { id = 1, priority = 8 } }, "priority must be from 0 to 7, got 8" },
  { { vlan = { id = 1, inner = { id = 2, inner = 3 } }, ip = V4 }, "two tags at most" },
  { { eth = false, vlan = 1, ip = V4 }, "a vlan tag needs an Ethernet header" },
  { { ip = { src = "10.0.0.1" } }, "dst is missing" },
  { { ip = { src = "10.0.0.1", dst = "fd00::1" } }, "different families" },
  { { ip6 = V4 }, "must be IPv6 addresses" },
  { { ip = V4, ip6 = V6 }, "takes one of ip, ip6 and arp" },
  { { ip = V4, udp = {}, tcp = {} }, "takes one of udp, tcp and icmp" },
  { { udp = {} }, "a transport header needs an IP header" },
  { { arp = V4, udp = {} }, "arp has no transport header" },
  { { ip = { src = "10.0.0.1", dst = "10.0.0.2", offset = 3 } }, "offset must be a multiple of 8" },
  {
    { ip = { src = "10.0.0.1", dst = "10.0.0.2", options = "abc" } },
    "options must be 0 to 40 bytes",
  },
  {
    { ip = { src = "10.0.0.1", dst = "10.0.0.2", proto = "quic" } },
    'there is no protocol "quic"',
  },
  {
    { ip = { src = "10.0.0.1", dst = "10.0.0.2", ttl = 256 } },
    "ttl must be an integer from 0 to 255",
  },
  {
    { ip6 = { src = "fd00::1", dst = "fd00::2", flow_label = 2 ^ 20 } },
    "flow_label must be from 0",
  },
  { { ip = V4, tcp = { flags = "sin" } }, 'there is no flag "sin"' },
  { { ip = V4, tcp = { flags = { syn = 1 } } }, "flags.syn must be true or false, got 1" },
  { { ip = V4, tcp = { options = ("x"):rep(41) } }, "options must be 40 bytes at most" },
  { { ip = V4, icmp = { type = "ping" } }, 'there is no type "ping"' },
  { { ip = V4, icmp = { mtu = 65536 } }, "mtu must be from 0 to 65535" },
  { { ip = V4, udp = {}, payload = ("x"):rep(65536) }, "bytes is too long" },
  { { ip = V4, payload = ("x"):rep(65536) }, "bytes is too long" },
  { { ip = V4, upd = {} }, 'unknown option "upd"' },
}
for i, case in ipairs(WRONG) do
  test.case(("refused %d: %s"):format(i, case[2]), function(t)
    local e = t:raises(function()
      packet.build(case[3] or case[1])
    end)
    t:ok(e.message:find(case[2], 1, true), e.message)
    t:equal(e.op, "packet.build")
  end)
end

test.case("what is no packet is refused", function(t)
  for _, bytes in ipairs({ "", "short", ("x"):rep(13) }) do
    t:raises(function()
      packet.decode(bytes)
    end, "are no Ethernet frame")
  end
  t:raises(function()
    packet.decode(("x"):rep(20), { first = "ip" })
  end, "this is no IP packet")
  t:raises(function()
    packet.decode(5)
  end, "EINVAL")
end)
