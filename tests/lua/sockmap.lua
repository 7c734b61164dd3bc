--- Programs on what sockets of a map receive and send, on real connections and datagrams.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../")
  .. "lib/?.lua;"
  .. package.path

local cnf = require("cnf")
local cgroups, pair, source = require("cgroups"), require("pair"), require("source")
local bpf, probe, test = cnf.bpf, cnf.probe, cnf.test

local SOURCE = [[
#include <linux/in.h>
MAP(sockets, SOCKMAP, 4, __u32, __u64);
MAP(hashed, SOCKHASH, 4, __u32, __u64);
MAP(plain, HASH, 4, __u32, __u64);
__u64 seen, bytes;
SEC("sk_skb/verdict") int count(struct __sk_buff *skb) {
  __sync_fetch_and_add(&seen, 1);
  __sync_fetch_and_add(&bytes, skb->len);
  return SK_DROP;
}
SEC("sk_skb/verdict") int drop(struct __sk_buff *skb) { return SK_DROP; }
SEC("sk_skb/stream_verdict") int stream(struct __sk_buff *skb) { return SK_PASS; }
SEC("sk_skb") int bare(struct __sk_buff *skb) { return SK_PASS; }
SEC("sk_msg") int leaving(struct sk_msg_md *msg) {
  __sync_fetch_and_add(&seen, 1);
  __sync_fetch_and_add(&bytes, msg->size);
  return SK_PASS;
}
SEC("sockops") int connected(struct bpf_sock_ops *ops) {
  __u32 key = 0;
  if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
    bpf_sock_map_update(ops, &sockets, &key, BPF_ANY);
  return 1;
}
SEC("tc") int elsewhere(struct __sk_buff *skb) { return 0; }
]]

local function compile(t)
  t:requires("sk_lookup")
  return source.compile(SOURCE)
end

--- Attaches, or skips the case where the kernel has no links for it.
local function attach(t, ...)
  local ok, attached = pcall(bpf.attach_sockmap, ...)
  if not ok and attached.code == "EOPNOTSUPP" then
    t:ok(attached.message:find("need Linux 6.10", 1, true), attached.message)
    t:skip(attached.message)
  end
  return ok and attached or error(attached, 0)
end

for _, kind in ipairs({ "sockets", "hashed" }) do
  test.case("datagrams to a server in a map are counted and dropped: " .. kind, function(t)
    local a, b = pair(t)
    local o = compile(t)
    local server = probe.serve(b, { udp = 5000, reply = "hello" })
    local attached = attach(t, o.maps[kind], o.programs.count)
    t:equal(attached:info().hook, "sockmap")
    t:equal(attached.target, kind .. ", verdict")
    local function ask()
      return probe.udp(a, "10.0.0.2:5000", { send = "12345", timeout = 0.2 }).reply
    end
    t:equal(ask(), "hello")
    t:equal(o.globals.seen, 0, "it is not in the map")
    o.maps[kind]:set(0, server)
    t:raises(ask, "ETIMEDOUT")
    t:equal({ o.globals.seen, o.globals.bytes }, { 1, 5 })
    attached:replace(o.programs.drop)
    t:equal(attached:info().program, "drop")
    t:raises(ask, "ETIMEDOUT")
    t:equal(o.globals.seen, 2, "a socket keeps the program that it was put in with")
    o.maps[kind]:delete(0)
    o.maps[kind]:set(0, server)
    t:raises(ask, "ETIMEDOUT")
    t:equal(o.globals.seen, 2)
    o.maps[kind]:delete(0)
    t:equal(ask(), "hello")
    attached:detach()
    o.maps[kind]:set(0, server)
    t:equal(ask(), "hello")
  end)
end

test.case("what a connection sends passes a program of its map", function(t)
  local path = cgroups.new(t)
  local a, b = pair(t)
  local o = compile(t)
  attach(t, o.maps.sockets, o.programs.leaving)
  bpf.attach_cgroup(path, o.programs.connected)
  probe.serve(b, { tcp = 8080, reply = "hello" })
  local fetch = "exec 3<>/dev/tcp/10.0.0.2/8080 && echo hi >&3 && head -c 5 <&3"
  t:equal(a:exec({ "bash", "-c", fetch }).stdout, "hello")
  t:equal(o.globals.seen, 0, "not in the cgroup")
  t:equal(cgroups.inside(a, path, fetch).stdout, "hello")
  t:equal({ o.globals.seen, o.globals.bytes }, { 1, 3 })
end)

test.case("a hook takes one program, and only of its kind", function(t)
  local o = compile(t)
  local attached = attach(t, o.maps.sockets, o.programs.count)
  local function refused(pattern, ...)
    local arguments = table.pack(...)
    return t:raises(function()
      bpf.attach_sockmap(table.unpack(arguments, 1, arguments.n))
    end, pattern)
  end
  refused("EBUSY", o.maps.sockets, o.programs.drop)
  refused("EBUSY", o.maps.sockets, o.programs.stream)
  refused("takes a sockmap or a sockhash, not a hash", o.maps.plain, o.programs.count)
  local error = refused("which does not go on a map of sockets", o.maps.sockets, o.programs.elsewhere)
  t:equal(error.op, "bpf.attach_sockmap")
  t:equal(error.subject, "sockets")
  t:ok(error.hint:find('SEC("sk_msg")', 1, true), error.hint)
  refused('the hook of program "bare" is not known', o.maps.sockets, o.programs.bare)
  refused('has no hook "verdikt"', o.maps.sockets, o.programs.bare, { hook = "verdikt" })
  refused('unknown option "hok"', o.maps.sockets, o.programs.bare, { hok = "verdict" })
  refused("map %(first argument%) must be a Map", o.programs.bare, o.maps.sockets)
  attached:detach()
  attached = attach(t, o.maps.sockets, o.programs.stream)
  local sends = attach(t, o.maps.sockets, o.programs.leaving)
  t:equal({ attached.target, sends.target }, { "sockets, stream_verdict", "sockets, msg_verdict" })
  attached:detach()
  sends:detach()
  t:raises(function()
    attached:info()
  end, "it has been detached")
end)
