--- A network for the policy router's tests, packets made byte by byte for it, and where each of them ended.
---
---   client --- r.link.inside  [router r]  r.link.h1 ... r.link.hN --- sink
---
--- The client is 10.0.0.2 and fd00::2, the router's ends are .1. Way hI is 10.1.I.0/24 and fd01:I::/64, the sink's end .2.
--- The kernel's own route is by the last way. At the sink a program notes each packet of ours by the number it carries:
--- the way it came by, its TTL, tag and length; then it drops it. All other traffic is left alone.

local cnf = require("cnf")
local link, bpf = cnf.link, cnf.bpf

local lab = {}

-- Frames -----------------------------------------------------------------------------------------------------------

--- The 4 or 16 bytes of an address, and its family.
local function address_bytes(text)
  if not text:find(":", 1, true) then
    local a, b, c, d = text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
    return string.pack("BBBB", a, b, c, d), 4
  end
  local head, tail = text:match("^(.-)::(.*)$")
  local function words(part)
    local found = {}
    for word in part:gmatch("%x+") do
      found[#found + 1] = string.pack(">I2", tonumber(word, 16))
    end
    return found
  end
  if not head then
    return table.concat(words(text)), 6
  end
  local left, right = words(head), words(tail)
  return table.concat(left) .. ("\0\0"):rep(8 - #left - #right) .. table.concat(right), 6
end

lab.address_bytes = address_bytes

--- The Internet checksum (RFC 1071).
local function checksum(bytes)
  if #bytes % 2 == 1 then
    bytes = bytes .. "\0"
  end
  local sum = 0
  for i = 1, #bytes, 2 do
    sum = sum + string.unpack(">I2", bytes, i)
  end
  while sum > 0xffff do
    sum = (sum & 0xffff) + (sum >> 16)
  end
  return ~sum & 0xffff
end

local function mac_bytes(text)
  return (text:gsub("%x%x:?", function(pair)
    return string.char(tonumber(pair:sub(1, 2), 16))
  end))
end

lab.mac_bytes = mac_bytes

local PROTOCOLS = { icmp = 1, tcp = 6, udp = 17, gre = 47, esp = 50, icmpv6 = 58, sctp = 132 }
local MAGIC = 0x504f4c49

--- What follows the IP header: ports where the protocol has them, filling, and our number at the end.
local function payload(packet, number)
  local size = packet.size or 32
  local head
  if packet.proto == "tcp" then
    local flags = packet.flags or 0x10
    head = string.pack(">I2I2I4I4BBI2I2I2", packet.sport, packet.dport, 1, 1, 0x50, flags, 512, 0, 0)
  elseif packet.proto == "udp" then
    -- No checksum: IPv6 receivers mind, forwarders do not.
    head = string.pack(">I2I2I2I2", packet.sport, packet.dport, 8 + size, 0)
  elseif packet.proto == "sctp" then
    head = string.pack(">I2I2I4I4", packet.sport, packet.dport, 0, 0)
  elseif packet.proto == "icmp" then
    head = string.pack(">BBI2I2I2", 8, 0, 0, 1, 1)
  elseif packet.proto == "icmpv6" then
    head = string.pack(">BBI2I2I2", packet.icmp_type or 128, 0, 0, 1, 1)
  else
    head = ""
  end
  return head .. ("\0"):rep(size - 8) .. string.pack(">I4I4", MAGIC, number)
end

--- The checksum of what follows the IP header filled in, over the pseudo header too (RFC 793, RFC 8200).
local function summed(body, packet, from, to)
  local at = ({ tcp = 17, udp = 7 })[packet.proto]
  local pseudo = from .. to .. string.pack(">I4I4", #body, PROTOCOLS[packet.proto])
  local sum = checksum(pseudo .. body)
  return body:sub(1, at - 1) .. string.pack(">I2", sum == 0 and 0xffff or sum) .. body:sub(at + 2)
end

--- An IP packet from a table: from, to, proto, sport, dport, ttl, size (of the payload, in bytes), and of fragments
--- id, offset (bytes) and more. `flags` are those of TCP; `sum` fills in the checksum of TCP or UDP, which is not done
--- otherwise.
function lab.packet(packet, number)
  local from, family = address_bytes(packet.from)
  local to = address_bytes(packet.to)
  local fragment = packet.offset or packet.more
  packet.proto = packet.proto or "udp"
  packet.sport, packet.dport = packet.sport or 1000, packet.dport or 2000
  local body
  if packet.offset and packet.offset > 0 then
    body = ("\0"):rep((packet.size or 32) - 8) .. string.pack(">I4I4", MAGIC, number)
  else
    body = payload(packet, number)
    if packet.sum then
      body = summed(body, packet, from, to)
    end
  end
  local proto = PROTOCOLS[packet.proto] or packet.proto
  local ttl = packet.ttl or 64
  if family == 4 then
    local flags = (packet.df and 0x4000 or 0) | (packet.more and 0x2000 or 0) | (packet.offset or 0) // 8
    local function header(sum)
      return string.pack(
        ">BBI2I2I2BBI2", 0x45, 0, 20 + #body, packet.id or 7, flags, ttl, proto, sum
      ) .. from .. to
    end
    return header(checksum(header(0))) .. body, 0x0800
  end
  if fragment then
    local flags = (packet.offset or 0) | (packet.more and 1 or 0)
    body = string.pack(">BBI2I4", proto, 0, flags, packet.id or 7) .. body
    proto = 44
  end
  return string.pack(">I4I2BB", 0x60000000, #body, proto, ttl) .. from .. to .. body, 0x86dd
end

--- A frame for a packet: with `vlan` a tagged one.
function lab.frame(packet, number, to_mac, from_mac)
  local bytes, ethertype = lab.packet(packet, number)
  local tag = packet.vlan and string.pack(">I2I2", 0x8100, packet.vlan) or ""
  return mac_bytes(to_mac) .. mac_bytes(from_mac) .. tag .. string.pack(">I2", ethertype) .. bytes
end

-- The sink's program -----------------------------------------------------------------------------------------------

local TAP = [[
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

struct note {
  __u32 way;
  __u32 ttl;
  __u32 tag;
  __u32 length;
  __u32 times;
};

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1 << 17);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, __u32);
  __type(value, struct note);
} notes SEC(".maps");

static __always_inline int note(struct __sk_buff *skb, __u32 l3)
{
  __be32 end[2];
  __u8 version = 0, ttl = 0;
  __u32 number;

  if (skb->len < 28 || bpf_skb_load_bytes(skb, skb->len - 8, end, sizeof(end)))
    return TC_ACT_UNSPEC;
  if (end[0] != bpf_htonl(0x504f4c49))
    return TC_ACT_UNSPEC;
  number = bpf_ntohl(end[1]);
  bpf_skb_load_bytes(skb, l3, &version, 1);
  bpf_skb_load_bytes(skb, l3 + (version >> 4 == 4 ? 8 : 7), &ttl, 1);
  struct note seen = {
    .way = skb->ifindex,
    .ttl = ttl,
    .tag = skb->vlan_present || skb->protocol == bpf_htons(ETH_P_8021Q),
    .length = skb->len - l3,
    .times = 1,
  };
  struct note *before = bpf_map_lookup_elem(&notes, &number);
  if (before)
    seen.times = before->times + 1;
  bpf_map_update_elem(&notes, &number, &seen, BPF_ANY);
  return TC_ACT_SHOT;
}

SEC("tc") int tap(struct __sk_buff *skb) { return note(skb, 14); }
SEC("tc") int tap_l3(struct __sk_buff *skb) { return note(skb, 0); }
char LICENSE[] SEC("license") = "GPL";
]]

--- The object of that program, with notes of its own: `tap` for links with a link header, `tap_l3` for those without.
function lab.tap()
  return bpf.compile({ source = TAP })
end

-- The network ------------------------------------------------------------------------------------------------------

local Lab = {}
Lab.__index = Lab

local MAC = "02:00:00:00:%02x:%02x"

--- Options: ways (how many, 3 by default).
function lab.new(t, options)
  options = options or {}
  local self = setmetatable({ t = t, link = {}, far = {}, number = 0, names = {} }, Lab)
  self.client, self.ns, self.sink = t:netns("lab-c"), t:netns("lab-r"), t:netns("lab-s")
  self.c0, self.link.inside = link.veth({
    name = "c0", netns = self.client, mac = MAC:format(0, 2), address = { "10.0.0.2/24", "fd00::2/64" },
    peer = { name = "inside", netns = self.ns, mac = MAC:format(0, 1), address = { "10.0.0.1/24", "fd00::1/64" } },
  })
  self.client:route({ dst = "default", via = "10.0.0.1" })
  self.client:route({ dst = "default", via = "fd00::1" })
  self.ways = options.ways or 3
  self.object = lab.tap()
  for i = 1, self.ways do
    self:add_way(i)
  end
  local last = self.ways
  self.ns:route({ dst = "default", via = ("10.1.%d.2"):format(last) })
  self.ns:route({ dst = "default", via = ("fd01:%x::2"):format(last) })
  self.ns:sysctl("net.ipv4.ip_forward", 1)
  self.ns:sysctl("net.ipv6.conf.all.forwarding", 1)
  return self
end

--- Makes way hI. Its neighbour is known from the start, so that packets keep their order.
function Lab:add_way(i)
  local name = "h" .. i
  self.link[name], self.far[name] = link.veth({
    name = name, netns = self.ns, mac = MAC:format(i, 1),
    address = { ("10.1.%d.1/24"):format(i), ("fd01:%x::1/64"):format(i) },
    peer = {
      name = name, netns = self.sink, mac = MAC:format(i, 2),
      address = { ("10.1.%d.2/24"):format(i), ("fd01:%x::2/64"):format(i) },
    },
  })
  self.ns:neigh({ dst = ("10.1.%d.2"):format(i), lladdr = MAC:format(i, 2), dev = name })
  self.ns:neigh({ dst = ("fd01:%x::2"):format(i), lladdr = MAC:format(i, 2), dev = name })
  bpf.attach(self.far[name], "ingress", self.object.programs.tap)
  self.names[self.far[name].index] = name
end

--- Puts 198.51.100.1 and 2001:db8:99::1 behind every way, with the way back by the last.
function Lab:add_far_addresses()
  local lo = self.sink:link("lo")
  lo:add_address("198.51.100.1/32")
  lo:add_address("2001:db8:99::1/128")
  self.sink:route({ dst = "10.0.0.0/24", via = ("10.1.%d.1"):format(self.ways) })
  self.sink:route({ dst = "fd00::/64", via = ("fd01:%x::1"):format(self.ways) })
end

--- Makes any other link of the sink one whose packets are noted.
function Lab:watch(far, name, headerless)
  bpf.attach(far, "ingress", self.object.programs[headerless and "tap_l3" or "tap"])
  self.names[far.index] = name
end

--- Where a policy goes by way `i`: via and dev of that family.
function Lab:hop(i, family)
  local via = family == 6 and ("fd01:%x::2"):format(i) or ("10.1.%d.2"):format(i)
  return { via = via, dev = self.link["h" .. i] }
end

--- A policy of these fields by way `i`, of the family that from, to or `family` says.
function Lab:by(i, policy)
  local address = policy.from or policy.to
  local hop = self:hop(i, policy.family or (address and address:find(":", 1, true) and 6) or 4)
  policy.family = nil
  policy.via, policy.dev = hop.via, hop.dev
  return policy
end

--- A router on the inside's ingress, unless `attach` says otherwise.
function Lab:router(options)
  options = options or {}
  options.attach = options.attach or { { self.link.inside, "ingress" } }
  return cnf.policy.router(options)
end

--- Sends packets out of a link, the client's unless `options.link` says another; the number of the first. `mark` is their
--- mark there; `headerless` leaves the link header out; `to_mac` is theirs where it is not the router's.
function Lab:inject(packets, options)
  options = options or {}
  local out = options.link or self.c0
  local to_mac = options.to_mac or MAC:format(0, 1)
  local frames, first = {}, self.number + 1
  for i, packet in ipairs(packets) do
    local make = options.headerless and lab.packet or lab.frame
    -- A header-less packet's second result, its EtherType, is not for the list.
    frames[i] = (make(packet, self.number + i, to_mac, MAC:format(0, 2)))
  end
  self.number = self.number + #packets
  cnf._test.send_frames(out, frames, options.mark)
  return first
end

--- Packets that `r` has seen the end of.
local function ended(r)
  local total = r:stats().total
  return total.dropped.packets + total.too_big.packets + total.failed.packets
end

--- Sends many packets and tells of each its way, "h1" or "none", and what the sink noted. Waits until each has come to the
--- sink or met its end at `r`; `options.lost` may be lost elsewhere.
function Lab:fates(r, packets, options)
  options = options or {}
  local before, notes, found = r and ended(r) or 0, self.object.maps.notes, {}
  local first = self:inject(packets, options)
  self.t:eventually(function()
    local count = options.lost or 0
    for i = 1, #packets do
      found[i] = found[i] or notes:get(first + i - 1)
      count = count + (found[i] and 1 or 0)
    end
    return count + (r and ended(r) - before or 0) >= #packets
  end)
  local ways = {}
  for i = 1, #packets do
    ways[i] = found[i] and (self.names[found[i].way] or "?") or "none"
  end
  return ways, found
end

--- The way of one packet, and its note.
function Lab:way(r, packet, options)
  local ways, notes = self:fates(r, { packet }, options)
  return ways[1], notes[1]
end

--- How many of these packets went by each way.
function lab.held(ways)
  local count = {}
  for _, way in ipairs(ways) do
    count[way] = (count[way] or 0) + 1
  end
  return count
end

--- Packets that each policy of `r` took while `fn` ran, by its place in r:list().
function lab.counted(r, fn)
  local before = r:stats()
  fn()
  local after, gained = r:stats(), {}
  for i, row in ipairs(after) do
    gained[i] = row.packets - (before[i] and before[i].packets or 0)
  end
  return gained
end

return lab
