--- Packets that nobody sends: a filter is run on packets built from tables, its settings are changed while it is loaded, and
--- what it does to each packet is read by field.
---
--- usage: cnfscript scripts/try_packets.lua
--- output:
---   query      drop
---   web        next    ttl 63    mark 1    checksum right
---   web6       next    ttl 64    mark 2    checksum right
---   with port 80 blocked:
---   query      next    ttl 63    mark 3    checksum right
---   web        drop
---   web6       drop
---   6 packets seen, # ns for one, # instructions

local cnf = require "cnf"
local bpf, packet = cnf.bpf, cnf.packet

local object = bpf.compile({
  source = [[
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

__u16 blocked = 53;
__u32 passed;
__u64 seen;

/* Drops one port, takes one off the TTL of IPv4, and numbers what passes. */
SEC("tc") int filter(struct __sk_buff *skb) {
  struct udphdr udp;
  __u8 ttl;
  int v4 = skb->protocol == bpf_htons(ETH_P_IP);
  int at = ETH_HLEN + (v4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr));
  int ttl_at = ETH_HLEN + offsetof(struct iphdr, ttl);

  seen++;
  if (bpf_skb_load_bytes(skb, at, &udp, sizeof(udp)))
    return TCX_NEXT;
  if (udp.dest == bpf_htons(blocked))
    return TCX_DROP;
  if (v4 && !bpf_skb_load_bytes(skb, ttl_at, &ttl, 1)) {
    __u16 old = bpf_htons(ttl << 8), new = bpf_htons((ttl - 1) << 8);
    bpf_l3_csum_replace(skb, ETH_HLEN + offsetof(struct iphdr, check), old, new, 2);
    ttl--;
    bpf_skb_store_bytes(skb, ttl_at, &ttl, 1, 0);
  }
  skb->mark = ++passed;
  return TCX_NEXT;
}
char LICENSE[] SEC("license") = "GPL";
]],
}, { cflags = { "-DTCX_NEXT=-1", "-DTCX_DROP=2" } })
local filter, globals = object.programs.filter, object.globals

local v4, v6 = { src = "10.0.0.1", dst = "10.0.0.2" }, { src = "fd00::1", dst = "fd00::2" }
local packets = {
  { "query", packet.build { ip = v4, udp = { dport = 53 }, payload = "?" } },
  { "web", packet.build { ip = v4, udp = { dport = 80 }, payload = "GET" } },
  { "web6", packet.build { ip6 = v6, udp = { dport = 80 }, payload = "GET" } },
}

local function try()
  for _, case in ipairs(packets) do
    local run = filter:test_run { packet = case[2] }
    local read = packet.decode(run.packet)
    if run.verdict == "drop" then
      print(("%-10s drop"):format(case[1]))
    else
      local ip = read.ip or read.ip6
      local right = ip.checksum_ok ~= false and read.udp.checksum_ok
      print(("%-10s %-7s ttl %d    mark %d    checksum %s"):format(
        case[1], run.verdict, ip.ttl or ip.hop_limit, run.ctx.mark, right and "right" or "wrong"))
    end
  end
end

try()
globals.blocked = 80
print("with port 80 blocked:")
try()

local seen = globals.seen
local timed = filter:test_run { packet = packets[1][2], repeat_count = 10000 }
print(("%d packets seen, %d ns for one, %d instructions"):format(
  seen, timed.nanoseconds, filter:info().instructions))
