--- TCP headers of packets: flags and options in words, and back to the same bytes.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local pair, refused, source = require("pair"), require("refused"), require("source")
local bpf, packet, probe, test = cnf.bpf, cnf.packet, cnf.probe, cnf.test

local V4 = { src = "10.0.0.1", dst = "10.0.0.2" }

local function build(tcp)
  return packet.build({ ip = V4, tcp = tcp })
end

--- Bytes behind the first 20 of the header.
local function options_of(frame)
  return frame:sub(14 + 20 + 20 + 1)
end

local function read(frame)
  return packet.decode(frame).tcp
end

test.case("flags in either case", function(t)
  for _, given in ipairs({ "SYN,ACK", "syn, Ack", { "SYN", "ack" }, { SYN = true, Ack = true } }) do
    t:equal(read(build({ flags = given })).flags, { syn = true, ack = true })
  end
  t:equal(read(build({ flags = { SYN = false } })).flags, {})
end)

local CLOCKS = "\8\10\0\0\0\1\0\0\0\2"
local LAID_OUT = {
  { { mss = 1460 }, "\2\4\5\xb4" },
  { { wscale = 7 }, "\1\3\3\7" },
  { { sack = true }, "\1\1\4\2" },
  { { timestamps = { value = 1, echo = 2 } }, "\1\1" .. CLOCKS },
  { { sack = true, timestamps = { value = 1, echo = 2 } }, "\4\2" .. CLOCKS },
  {
    { mss = 1460, sack = true, timestamps = { value = 1, echo = 2 }, wscale = 7 },
    "\2\4\5\xb4\4\2" .. CLOCKS .. "\1\3\3\7",
  },
  { { sack = { { 1, 2 } } }, "\1\1\5\10\0\0\0\1\0\0\0\2" },
  {
    { timestamps = { value = 1, echo = 2 }, sack = { { 1, 2 }, { 3, 2 ^ 32 - 1 } } },
    "\1\1" .. CLOCKS .. "\1\1\5\18\0\0\0\1\0\0\0\2\0\0\0\3\255\255\255\255",
  },
}

test.case("options are laid out as Linux does, and read in the same words", function(t)
  for _, case in ipairs(LAID_OUT) do
    local words, bytes = case[1], case[2]
    local frame = build({ options = words })
    t:equal(options_of(frame), bytes)
    t:equal(read(frame).options, words)
    t:ok(read(frame).checksum_ok)
    t:equal(build({ options = bytes }), frame)
  end
  t:equal(options_of(build({ options = {} })), "")
  t:equal(read(build({})).options, nil)
  t:equal(read(build({ options = { timestamps = { value = 5 } } })).options.timestamps.echo, 0)
end)

test.case("options in another order keep their bytes beside the words", function(t)
  -- As Windows sends them: mss, nop, wscale, nop, nop, sack.
  local bytes = "\2\4\5\xb4\1\3\3\8\1\1\4\2"
  local frame = build({ options = bytes })
  local words = read(frame).options
  t:equal(words, { mss = 1460, wscale = 8, sack = true, bytes = bytes })
  t:equal(build({ options = words }), frame)
  t:equal(build({ options = { bytes = bytes } }), frame)
  -- One that there is no word for, behind one that there is: a fast open cookie is asked for.
  local unknown = "\2\4\5\xb4\34\2\1\1"
  t:equal(read(build({ options = unknown })).options, { mss = 1460, bytes = unknown })
  t:equal(read(build({ options = "\34\2\1\1" })).options, "\34\2\1\1")
end)

test.case("whatever the options are, what is read builds the same header", function(t)
  local seed = 5
  local function random(limit)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed // 65536 % limit
  end
  local kinds = { "\1", "\2\4\1\2", "\3\3\9", "\4\2", "\8\10ABCDefgh", "\5\10ABCDefgh", "\0", "\30\3x" }
  for _ = 1, 500 do
    local parts = {}
    for i = 1, random(6) do
      parts[i] = kinds[1 + random(#kinds)]
    end
    local frame = build({ options = table.concat(parts):sub(1, 40 - random(8)) })
    t:equal(build({ options = read(frame).options }), frame)
  end
end)

test.case("options of a connection that Linux makes", function(t)
  local a, b, near = pair(t)
  local seen = source.compile([[
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/tcp.h>
struct head { __u8 bytes[74]; };
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 1); __type(key, __u32);
  __type(value, struct head); } first SEC(".maps");
SEC("tc") int see(struct __sk_buff *skb) {
  struct head head;
  struct tcphdr tcp;
  __u32 key = 0;
  if (bpf_skb_load_bytes(skb, 14 + 20, &tcp, sizeof(tcp)) || !tcp.syn || tcp.ack) return -1;
  if (bpf_skb_load_bytes(skb, 0, &head, sizeof(head))) return -1;
  bpf_map_update_elem(&first, &key, &head, BPF_ANY);
  return -1;
}]])
  bpf.attach(near, "egress", seen.programs.see)
  probe.serve(b, { tcp = 80, reply = "hello" })
  t:equal(probe.tcp(a, "10.0.0.2:80").reply, "hello")
  local frame = string.char(table.unpack(seen.maps.first:get(0).bytes))
  local options = read(frame).options
  t:equal(options.mss, 1460)
  t:equal(options.sack, true)
  t:ok(options.wscale and options.timestamps.value > 0 and options.timestamps.echo == 0)
  t:equal(options.bytes, nil)
  t:equal(options_of(build({ options = options })), options_of(frame))
end)

local REFUSED = {
  { { mss = 65536 }, "mss must be an integer from 0 to 65535, got 65536" },
  { { wscale = -1 }, "wscale must be an integer from 0 to 255" },
  { { sack = 5 }, "sack must be true, or one to four blocks" },
  { { sack = {} }, "sack must be true, or one to four blocks" },
  { { sack = { { 1 } } }, "sack must be true, or one to four blocks" },
  { { sack = { { 1, 2, 3 } } }, "sack must be true, or one to four blocks" },
  { { sack = { { 1, 2 ^ 32 } } }, "sack must be true, or one to four blocks" },
  { { timestamps = {} }, "value is missing" },
  { { timestamps = 5 }, "timestamps must be a table, got 5" },
  { { bytes = ("x"):rep(41) }, "options must be 40 bytes at most, got 41" },
  { { bytes = "\2\4\5\xb4", mss = 1400 }, "bytes do not say what the other words do" },
  { { mms = 1460 }, 'did you mean "mss"?' },
  {
    { timestamps = { value = 1 }, sack = { { 1, 2 }, { 1, 2 }, { 1, 2 }, { 1, 2 } } },
    "they need more than 40 bytes",
  },
}

test.case("options that cannot be are refused", function(t)
  for _, case in ipairs(REFUSED) do
    refused(t, "EINVAL", case[2], build, { options = case[1] })
  end
  t:raises(function()
    build({ options = 5 })
  end, "options must be a string of bytes, got 5")
end)
