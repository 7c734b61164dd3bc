--- Hooks beyond links: cgroups, sk_lookup, tracepoints, kernel functions, on real packets and connections.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../")
  .. "lib/?.lua;"
  .. package.path

local cnf = require("cnf")
local cgroups, pair, source = require("cgroups"), require("pair"), require("source")
local bpf, netns, probe, test = cnf.bpf, cnf.netns, cnf.probe, cnf.test

local cgroup, inside = cgroups.new, cgroups.inside

local HEADERS = [[
#include <linux/in.h>
#include <bpf/bpf_endian.h>
]]

local function compile(text, options)
  return source.compile(HEADERS .. text, options)
end

test.case("packets of a cgroup are counted and stopped, others are not", function(t)
  local path = cgroup(t)
  local a = pair(t)
  local o = compile([[
__u64 sent, received;
__u32 allow = 1;
SEC("cgroup_skb/egress") int leaving(struct __sk_buff *skb) {
  __sync_fetch_and_add(&sent, 1);
  return allow ? 1 : 0;
}
SEC("cgroup_skb/ingress") int arriving(struct __sk_buff *skb) {
  __sync_fetch_and_add(&received, 1);
  return 1;
}
]])
  local out = bpf.attach_cgroup(path, o.programs.leaving)
  bpf.attach_cgroup(path, o.programs.arriving)
  local ping = "ping -c 2 -i 0.2 -W 2 10.0.0.2"
  t:equal(inside(a, path, ping).code, 0)
  t:equal({ o.globals.sent, o.globals.received }, { 2, 2 })
  t:equal(out:info().hook, "cgroup")
  t:equal(out.target, path .. ", egress")
  o.globals.allow = 0
  t:ok(inside(a, path, ping).code ~= 0, "stopped")
  t:equal(probe.ping(a, "10.0.0.2", {
    count = 2,
    interval = 0.05,
  }).received, 2, "not in the cgroup")
  out:detach()
  t:equal(inside(a, path, ping).code, 0)
  out:detach()
  t:raises(function()
    out:info()
  end, "it has been detached")
end)

test.case("connect and sendmsg go elsewhere", function(t)
  local path = cgroup(t)
  local a, b = pair(t)
  local o = compile([[
const volatile __u32 port = 0;
__u64 connects, datagrams;
static int redirect(struct bpf_sock_addr *ctx, __u32 to) {
  if (ctx->user_ip4 != bpf_htonl(0x0a000063))
    return 1;
  ctx->user_ip4 = bpf_htonl(0x0a000002);
  if (to)
    ctx->user_port = bpf_htons(to);
  return 1;
}
SEC("cgroup/connect4") int connecting(struct bpf_sock_addr *ctx) {
  __sync_fetch_and_add(&connects, 1);
  return redirect(ctx, port);
}
SEC("cgroup/sendmsg4") int sending(struct bpf_sock_addr *ctx) {
  __sync_fetch_and_add(&datagrams, 1);
  return redirect(ctx, 0);
}
]], { globals = { port = 8080 } })
  probe.serve(b, { tcp = 8080, reply = "hello" })
  local attached = bpf.attach_cgroup(path, o.programs.connecting)
  bpf.attach_cgroup(path, o.programs.sending)
  local fetch = "exec 3<>/dev/tcp/10.0.0.99/80 && echo hi >&3 && head -c 5 <&3"
  local got = inside(a, path, fetch)
  t:equal({ got.code, got.stdout }, { 0, "hello" })
  t:equal(o.globals.connects, 1)
  -- traceroute sends datagrams without connecting; 10.0.0.2 answers that nobody listens.
  local traced = inside(a, path, "busybox traceroute -n -q 1 -m 1 -w 2 10.0.0.99")
  t:ok(traced.stdout:find("10.0.0.2", 1, true), traced.stdout .. traced.stderr)
  t:ok(o.globals.datagrams >= 1)
  local other = compile([[
SEC("cgroup/connect4") int refusing(struct bpf_sock_addr *ctx) { return 0; }
SEC("cgroup_skb/egress") int leaving(struct __sk_buff *skb) { return 1; }
]])
  attached:replace(other.programs.refusing)
  t:equal(attached:info().program, "refusing")
  t:ok(inside(a, path, fetch).code ~= 0)
  t:raises(function()
    attached:replace(other.programs.leaving)
  end, "EINVAL")
end)

test.case("connect and sendmsg go elsewhere over IPv6, and a port is not to be had", function(t)
  local path = cgroup(t)
  local a, b = pair(t)
  local o = compile([[
__u64 connects, datagrams, binds;
static int redirect(struct bpf_sock_addr *ctx, __u32 port) {
  if (ctx->user_ip6[0] != bpf_htonl(0xfd000000) || ctx->user_ip6[3] != bpf_htonl(0x99))
    return 1;
  ctx->user_ip6[3] = bpf_htonl(2);
  if (port)
    ctx->user_port = bpf_htons(port);
  return 1;
}
SEC("cgroup/connect6") int connecting(struct bpf_sock_addr *ctx) {
  __sync_fetch_and_add(&connects, 1);
  return redirect(ctx, 8080);
}
SEC("cgroup/sendmsg6") int sending(struct bpf_sock_addr *ctx) {
  __sync_fetch_and_add(&datagrams, 1);
  return redirect(ctx, 0);
}
static int bound(struct bpf_sock_addr *ctx) {
  __sync_fetch_and_add(&binds, 1);
  return ctx->user_port != bpf_htons(9999);
}
SEC("cgroup/bind4") int binding4(struct bpf_sock_addr *ctx) { return bound(ctx); }
SEC("cgroup/bind6") int binding6(struct bpf_sock_addr *ctx) { return bound(ctx); }
]])
  probe.serve(b, { tcp = 8080, reply = "hello" })
  for _, name in ipairs({ "connecting", "sending", "binding4", "binding6" }) do
    bpf.attach_cgroup(path, o.programs[name])
  end
  local got = inside(a, path, "exec 3<>/dev/tcp/fd00::99/80 && echo hi >&3 && head -c 5 <&3")
  t:equal({ got.code, got.stdout }, { 0, "hello" })
  t:equal(o.globals.connects, 1)
  local traced = inside(a, path, "busybox traceroute6 -n -q 1 -m 1 -w 2 fd00::99")
  t:ok(traced.stdout:find("fd00::2 ", 1, true), traced.stdout .. traced.stderr)
  t:ok(o.globals.datagrams >= 1)
  local taken = inside(a, path, "timeout 5 busybox nc -l -p 9999")
  t:ok(taken.code ~= 0 and taken.stderr:find("not permitted", 1, true), taken.stderr)
  t:equal(o.globals.binds, 1)
  local free = inside(a, path, "timeout 0.2 busybox nc -l -p 9998 </dev/null")
  t:ok(not free.stderr:find("not permitted", 1, true), free.stderr)
  t:equal(o.globals.binds, 2)
end)

test.case("sockets are refused and connections are seen", function(t)
  local path = cgroup(t)
  local a, b = pair(t)
  local o = compile([[
__u64 established;
SEC("cgroup/sock_create") int no_ipv6(struct bpf_sock *sk) { return sk->family != 10; }
SEC("sockops") int states(struct bpf_sock_ops *ops) {
  if (ops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
    __sync_fetch_and_add(&established, 1);
  return 1;
}
]])
  probe.serve(b, { tcp = 8080, reply = "hello" })
  bpf.attach_cgroup(path, o.programs.no_ipv6)
  bpf.attach_cgroup(path, o.programs.states)
  local fetch = "exec 3<>/dev/tcp/%s/8080 && echo hi >&3 && head -c 5 <&3"
  t:equal(inside(a, path, fetch:format("10.0.0.2")).stdout, "hello")
  t:equal(o.globals.established, 1)
  t:ok(inside(a, path, fetch:format("fd00::2")).code ~= 0)
  t:equal(a:exec({ "bash", "-c", fetch:format("fd00::2") }).stdout, "hello", "not in the cgroup")
end)

test.case("an attachment to a cgroup that is gone", function(t)
  local path = cgroup(t)
  local o = compile('SEC("cgroup_skb/egress") int leaving(struct __sk_buff *skb) { return 1; }')
  os.execute("mkdir " .. path .. "/below")
  local attached = bpf.attach_cgroup(path .. "/below", o.programs.leaving)
  local id = attached:info().link_id
  local found
  for _, each in ipairs(bpf.links()) do
    found = each.id == id and each or found
  end
  t:equal({ found.type, found.attach_type, found.cgroup_id > 0 }, { "cgroup", 1, true })
  os.execute("rmdir " .. path .. "/below")
  t:eventually(function()
    return not pcall(attached.info, attached)
  end)
  t:raises(function()
    attached:info()
  end, "its cgroup is gone")
end)

test.case("what does not go on a cgroup", function(t)
  local path = cgroup(t)
  local o = compile([[
SEC("tc") int elsewhere(struct __sk_buff *skb) { return 0; }
SEC("cgroup/connect4") int connecting(struct bpf_sock_addr *ctx) { return 1; }
]])
  local e = t:raises(function()
    bpf.attach_cgroup(path, o.programs.elsewhere)
  end, "is of type tc, which does not go on a cgroup")
  t:ok(e.hint:find("cgroup/connect4", 1, true), e.hint)
  e = t:raises(function()
    bpf.attach_cgroup(path, o.programs.connecting, { hook = "connects" })
  end, "has no hook")
  t:ok(e.hint:find("connect4, connect6", 1, true), e.hint)
  t:raises(function()
    bpf.attach_cgroup(path, o.programs.connecting, { hook = "connect6" })
  end, "EINVAL")
  t:raises(function()
    bpf.attach_cgroup(path .. "/nowhere", o.programs.connecting)
  end, "ENOENT")
  e = t:raises(function()
    bpf.attach_cgroup("/tmp", o.programs.connecting)
  end, "no directory of a cgroup")
  t:ok(e.hint, "where they are")
end)

test.case("lookups of listening sockets are counted and refused", function(t)
  t:requires("sk_lookup")
  local a, b = pair(t)
  local o = compile([[
__u64 lookups;
__u32 blocked;
SEC("sk_lookup") int guard(struct bpf_sk_lookup *ctx) {
  __sync_fetch_and_add(&lookups, 1);
  return ctx->local_port == blocked ? SK_DROP : SK_PASS;
}
SEC("sk_lookup") int closed(struct bpf_sk_lookup *ctx) { return SK_DROP; }
]])
  probe.serve(b, { tcp = 8080, reply = "hello" })
  local attached = bpf.attach_sk_lookup(b, o.programs.guard)
  t:equal(attached:info().hook, "sk_lookup")
  local function fetch()
    return probe.tcp(a, "10.0.0.2:8080", { send = "hi" }).reply
  end
  t:equal(fetch(), "hello")
  t:equal(o.globals.lookups, 1)
  o.globals.blocked = 8080
  t:raises(fetch, "ECONNREFUSED")
  o.globals.blocked = 0
  attached:replace(o.programs.closed)
  t:raises(fetch, "ECONNREFUSED")
  attached:detach()
  t:equal(fetch(), "hello")
  t:raises(function()
    bpf.attach_sk_lookup(b, compile('SEC("tc") int p(struct __sk_buff *s) { return 0; }').programs.p)
  end, "this hook takes sk_lookup")
end)

--- Where `steer` puts connections and datagrams: TCP to the socket at 0, UDP to that at 1.
local STEER = [[
struct { __uint(type, BPF_MAP_TYPE_%s); __uint(max_entries, 4); __type(key, __u32); __type(value, %s); }
  sockets SEC(".maps");
SEC("sk_lookup") int steer(struct bpf_sk_lookup *ctx) {
  __u32 key = ctx->protocol == IPPROTO_UDP;
  struct bpf_sock *sk = bpf_map_lookup_elem(&sockets, &key);
  long failed;
  if (!sk)
    return SK_PASS;
  failed = bpf_sk_assign(ctx, sk, 0);
  bpf_sk_release(sk);
  return failed ? SK_DROP : SK_PASS;
}
]]

for _, kind in ipairs({ "SOCKMAP", "SOCKHASH" }) do
  test.case("connections to any port come to the socket in a map: " .. kind, function(t)
    t:requires("sk_lookup")
    local a, b = pair(t)
    local o = compile(STEER:format(kind, "__u64"))
    local sockets = o.maps.sockets
    local tcp = probe.serve(b, { tcp = 8080, reply = "steered" })
    local udp = probe.serve(b, { udp = 8080, reply = "steered" })
    bpf.attach_sk_lookup(b, o.programs.steer)
    local function fetch(address)
      return probe.tcp(a, address, { send = "hi" }).reply
    end
    local function refused()
      fetch("10.0.0.2:80")
    end
    t:raises(refused, "ECONNREFUSED")
    sockets:set(0, tcp)
    t:equal(sockets:set_many({ [1] = udp }), 1)
    t:equal({ fetch("10.0.0.2:80"), fetch("10.0.0.2:443"), fetch("[fd00::2]:80") }, { "steered", "steered", "steered" })
    -- The answer comes from the server's own port, so that the client does not take it.
    for _, address in ipairs({ "10.0.0.2:53", "[fd00::2]:53" }) do
      t:raises(function()
        probe.udp(a, address, { timeout = 0.05 })
      end, "ETIMEDOUT")
    end
    t:eventually(function()
      return udp:stats().requests == 2
    end)
    local listed = {}
    for key, cookie in sockets:pairs() do
      listed[key] = cookie
    end
    t:equal(listed, { [0] = sockets:get(0), sockets:get(1) })
    t:ok(listed[0] > 0 and listed[1] > 0 and listed[0] ~= listed[1])
    t:equal({ sockets:delete(0), sockets:delete(0), sockets:get(0) }, { true, false, nil })
    t:raises(refused, "ECONNREFUSED")
    sockets:set(0, tcp)
    t:equal(fetch("10.0.0.2:80"), "steered")
    tcp:stop()
    t:equal(sockets:get(0), nil, "a socket that closes leaves the map")
    t:raises(refused, "ECONNREFUSED")
    t:raises(function()
      sockets:set(0, tcp)
    end, "was stopped")
    probe.serve(b, { tcp = 8080, reply = "again" })
    t:equal(fetch("10.0.0.2:8080"), "again", "its port is free at once")
  end)
end

test.case("what maps of sockets do not take, and do not show", function(t)
  t:requires("sk_lookup")
  local o = compile(STEER:format("SOCKMAP", "__u32") .. [[
struct { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
  numbers SEC(".maps");
]])
  local server = probe.serve(t:netns("a"), { tcp = 80 })
  o.maps.sockets:set(0, server)
  local e = t:raises(function()
    o.maps.sockets:get(0)
  end, "EOPNOTSUPP")
  t:ok(e.message:find("values have 4 bytes, a socket's cookie has 8", 1, true), e.message)
  t:raises(function()
    o.maps.sockets:set(4, server)
  end, "E2BIG")
  t:raises(function()
    o.maps.sockets:set(0, 0)
  end, "ENOTSOCK")
  t:raises(function()
    o.maps.numbers:set(0, server)
  end, "cannot be stored in a map")
end)

--- What each way of tracing counts: echo requests that a namespace gets. The filter is the count itself: pings are sent
--- until it has grown by as many.
local function counts(t, source, name)
  local a = pair(t)
  local o = compile("__u64 seen;\n" .. source)
  local attached = bpf.attach_tracing(o.programs[name])
  local function ping()
    t:equal(probe.ping(a, "10.0.0.2", { count = 5, interval = 0.01 }).received, 5)
  end
  ping()
  t:ok(o.globals.seen >= 5, o.globals.seen)
  return o, attached, ping
end

test.case("tracepoints", function(t)
  t:requires("tracepoint")
  local o, attached = counts(t, [[
SEC("tracepoint/net/netif_receive_skb") int receiving(void *ctx) {
  __sync_fetch_and_add(&seen, 1);
  return 0;
}
SEC("tracepoint/net/netif_receive_sbk") int misspelt(void *ctx) { return 0; }
SEC("tracepoint") int nowhere(void *ctx) { return 0; }
SEC("tc") int elsewhere(struct __sk_buff *skb) { return 0; }
]], "receiving")
  t:equal(attached:info(), {
    hook = "tracepoint",
    target = "net/netif_receive_skb",
    program = "receiving",
    program_id = o.programs.receiving.id,
    link_id = attached:info().link_id,
  })
  local e = t:raises(function()
    bpf.attach_tracing(o.programs.misspelt)
  end, 'no tracepoint "net/netif_receive_sbk"')
  t:equal(e.hint, 'did you mean "net/netif_receive_skb"?')
  t:raises(function()
    bpf.attach_tracing(o.programs.nowhere)
  end, "says nowhere where to attach it")
  bpf.attach_tracing(o.programs.nowhere, { to = "tracepoint/net/netif_receive_skb" }):detach()
  bpf.attach_tracing(o.programs.nowhere, { to = "net/netif_receive_skb" }):detach()
  t:raises(function()
    bpf.attach_tracing(o.programs.elsewhere)
  end, "is of type tc, which traces nothing")
  e = t:raises(function()
    attached:replace(o.programs.misspelt)
  end, "EOPNOTSUPP")
  t:ok(e.hint:find("detach", 1, true), e.hint)
  for _, outside in ipairs({ "../net/netif_receive_skb", "net", "net/../../x/y" }) do
    t:raises(function()
      bpf.attach_tracing(o.programs.nowhere, { to = outside })
    end, "ENOENT")
  end
end)

test.case("raw tracepoints", function(t)
  t:requires("tracepoint")
  local o = counts(t, [[
SEC("raw_tp/netif_receive_skb") int receiving(void *ctx) {
  __sync_fetch_and_add(&seen, 1);
  return 0;
}
SEC("raw_tp/nothing") int nothing(void *ctx) { return 0; }
]], "receiving")
  t:raises(function()
    bpf.attach_tracing(o.programs.nothing)
  end, 'no tracepoint "nothing"')
end)

test.case("kprobes", function(t)
  t:requires("kprobe")
  local o = counts(t, [[
SEC("kprobe/icmp_rcv") int entering(void *ctx) {
  __sync_fetch_and_add(&seen, 1);
  return 0;
}
SEC("kretprobe/icmp_rcv") int leaving(void *ctx) { return 0; }
SEC("kprobe/no_such_function") int nothing(void *ctx) { return 0; }
]], "entering")
  t:equal(bpf.attach_tracing(o.programs.leaving):info().target, "icmp_rcv")
  t:raises(function()
    bpf.attach_tracing(o.programs.nothing)
  end, 'no function "no_such_function"')
end)

test.case("fentry, fexit and typed tracepoints", function(t)
  t:requires("fentry")
  local o, _, ping = counts(t, [[
__u64 left, typed;
SEC("fentry/icmp_rcv") int entering(void *ctx) {
  __sync_fetch_and_add(&seen, 1);
  return 0;
}
SEC("fexit/icmp_rcv") int leaving(void *ctx) {
  __sync_fetch_and_add(&left, 1);
  return 0;
}
SEC("tp_btf/netif_receive_skb") int receiving(void *ctx) {
  __sync_fetch_and_add(&typed, 1);
  return 0;
}
]], "entering")
  bpf.attach_tracing(o.programs.leaving)
  bpf.attach_tracing(o.programs.receiving)
  ping()
  t:ok(o.globals.left >= 5 and o.globals.typed >= 5, o.globals.left)
  t:raises(function()
    bpf.attach_tracing(o.programs.entering, { to = "icmp_send" })
  end, "is loaded for its function")
  for source, pattern in pairs({
    ['SEC("fentry/no_such_function") int p(void *ctx) { return 0; }'] = 'no function "no_such_function"',
    ['SEC("tp_btf/no_such_tracepoint") int p(void *ctx) { return 0; }'] = 'no tracepoint "no_such_tracepoint"',
    ['SEC("fentry") int p(void *ctx) { return 0; }'] = "names no function",
  }) do
    t:raises(function()
      compile(source)
    end, pattern)
  end
end)
