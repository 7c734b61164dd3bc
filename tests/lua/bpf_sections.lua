--- What the sections of an object say: programs of every type, by every spelling, and its licence.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local bpf, probe, test = cnf.bpf, cnf.probe, cnf.test
local bpffs, pair = require("bpffs"), require("pair")
local source = require("source")
local compile, HEAD, LICENSE = source.compile, source.HEAD, source.LICENSE

local FRAME = ("\0"):rep(64)

local SECTIONS = {
  { "tc", "tc" },
  { "tc/named", "tc" },
  { "classifier", "tc" },
  { "classifier/named", "tc" },
  { "tcx/ingress", "tc" },
  { "tcx/ingress/named", "tc" },
  { "tcx/egress", "tc" },
  { "tcx/egress/named", "tc" },
  { "netkit/primary", "tc" },
  { "netkit/primary/named", "tc" },
  { "netkit/peer", "tc" },
  { "netkit/peer/named", "tc" },
  { "xdp", "xdp" },
  { "xdp/named", "xdp" },
  { "xdp.frags", "xdp" },
  { "xdp.frags/named", "xdp" },
  { "action", "tc_action" },
  { "socket", "socket_filter" },
}

test.case("every spelling of a section", function(t)
  local source = ""
  for i, section in ipairs(SECTIONS) do
    source = source .. ('SEC("%s") int p%d(void *ctx) { return %d; }\n'):format(section[1], i, i)
  end
  local o = compile(source)
  for i, section in ipairs(SECTIONS) do
    local program = o.programs["p" .. i]
    t:equal(program.type, section[2], section[1])
    if section[2] ~= "socket_filter" then
      t:equal(program:test_run({ packet = FRAME }).retval, i, section[1])
    end
  end
end)

local BEYOND = {
  { "sk_skb/stream_parser", "sk_skb" },
  { "sk_skb/stream_verdict/named", "sk_skb" },
  { "sk_skb/verdict", "sk_skb" },
  { "sk_skb", "sk_skb" },
  { "sk_msg", "sk_msg" },
  { "sk_reuseport/migrate", "sk_reuseport" },
  { "sk_reuseport", "sk_reuseport" },
  { "flow_dissector", "flow_dissector" },
  { "lwt_in", "lwt_in" },
  { "lwt_out", "lwt_out" },
  { "lwt_xmit/named", "lwt_xmit" },
  { "lwt_seg6local", "lwt_seg6local" },
  { "perf_event", "perf_event" },
  { "raw_tp.w/bpf_test_finish", "raw_tracepoint_writable" },
  { "raw_tracepoint.w/bpf_test_finish", "raw_tracepoint_writable" },
}

test.case("programs that others attach, by their pins", function(t)
  local loaded = 0
  for _, section in ipairs(BEYOND) do
    if bpf.has("prog_" .. section[2]).available then
      local o = compile(('SEC("%s") int p(void *ctx) { return 0; }\n'):format(section[1]))
      t:equal(o.programs.p.type, section[2], section[1])
      loaded = loaded + 1
    end
  end
  t:ok(loaded >= 8, loaded)
end)

test.case("a route's encapsulation runs a pinned program", function(t)
  t:requires("prog_lwt_xmit")
  local mount = bpffs(t)
  local o = compile([[
__u64 packets;
SEC("lwt_xmit") int count(struct __sk_buff *skb) {
  __sync_fetch_and_add(&packets, 1);
  return 0;
}
]])
  local a, _, _, far = pair(t)
  far:add_address("10.1.0.1/24")
  o.programs.count:pin(mount .. "/count")
  local added = a:exec(
    "ip route add 10.1.0.0/24 encap bpf xmit pinned " .. mount .. "/count via 10.0.0.2",
    { check = false }
  )
  if added.code ~= 0 then
    t:skip("this kernel, or its ip, has no routes with programs: " .. added.stderr)
  end
  t:equal(probe.ping(a, "10.1.0.1", { count = 3, interval = 0.01 }).received, 3)
  t:equal(o.globals.packets, 3)
end)

local MISSPELT = {
  { "tcx/ingres", "tcx/ingress" },
  { "tcx", "tcx/egress" },
  { "tcx/engress/name", "tcx/egress" },
  { "netkit/prmary", "netkit/primary" },
  { "netkit", "netkit/peer" },
  { "xpd", "xdp" },
  { "clasifier", "classifier" },
}

test.case("a section that is not spelt as any is refused, and the nearest named", function(t)
  for _, case in ipairs(MISSPELT) do
    local e = t:raises(function()
      compile(('SEC("%s") int p(void *ctx) { return 0; }\n'):format(case[1]))
    end, "is not a section")
    t:equal({ e.code, e.hint:match('did you mean "(.-)"') }, { "EINVAL", case[2] }, case[1])
  end
end)

test.case("an object has the licence it states, and none when it states none", function(t)
  local source = HEAD .. 'SEC("tc") int p(struct __sk_buff *skb) { return 0; }\n'
  local mine = 'char LICENSE[] SEC("license") = "Proprietary";\n'
  for licence, gpl in pairs({ [LICENSE] = true, [mine] = false, [""] = false }) do
    t:equal(bpf.compile({ source = source .. licence }).programs.p:info().gpl_compatible, gpl, licence)
  end
  local e = t:raises(function()
    bpf.compile({ source = HEAD .. 'SEC("tc") int p(void *skb) { return bpf_printk("here"); }\n' })
  end, "only for programs under the GPL")
  t:equal(e.hint, 'add: char LICENSE[] SEC("license") = "GPL";')
end)
