--- tcx: programs in the order they were asked to run, replaced under traffic, and gone with their script.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local bpf, tcx, link, netns, probe, test = cnf.bpf, cnf.tcx, cnf.link, cnf.netns, cnf.probe, cnf.test
local hooks, pair, source = require("hooks"), require("pair"), require("source")

local PROGRAMS = [[
SEC("tcx/ingress") int one(struct __sk_buff *skb) { return ran(1, -1); }
SEC("tcx/egress") int two(struct __sk_buff *skb) { return ran(2, -1); }
SEC("tc") int three(struct __sk_buff *skb) { return ran(3, -1); }
SEC("classifier") int four(struct __sk_buff *skb) { return ran(4, -1); }
SEC("tc") int pass(struct __sk_buff *skb) { return ran(5, 0); }
SEC("tc") int drop(struct __sk_buff *skb) { return ran(6, 2); }
SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }
]]

local object = hooks.counted(PROGRAMS)

for _, direction in ipairs({ "ingress", "egress" }) do
  test.case("packets meet the programs in the order asked for, " .. direction, function(t)
    t:requires("tcx")
    local a, _, near = pair(t)
    local o = object()
    local p = o.programs
    local two = tcx.attach(near, direction, p.two)
    tcx.attach(near, direction, p.one, { first = true })
    local four = tcx.attach(near, direction, p.four, { last = true })
    tcx.attach(near, direction, p.three, { before = four })
    t:equal(hooks.names(tcx.query(near, direction)), { "one", "two", "three", "four" })
    t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
    t:equal(hooks.met(o.maps), { 1, 2, 3, 4 })

    four:detach()
    t:equal(hooks.names(tcx.query(near, direction)), { "one", "two", "three" })
    tcx.attach(near, direction, p.four, { after = p.one })
    t:equal(hooks.names(tcx.query(near, direction)), { "one", "four", "two", "three" })
    tcx.attach(near, direction, p.pass, { before = two })
    t:equal(hooks.names(tcx.query(near, direction)), { "one", "four", "pass", "two", "three" })
    o.maps.turns:clear()
    t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
    t:equal(hooks.met(o.maps), { 1, 4, 5 }, "a result other than next ends the chain")
  end)

  test.case("a program that drops stops the traffic, " .. direction, function(t)
    t:requires("tcx")
    local a, _, near = pair(t)
    local o = object()
    local attachment = tcx.attach(near, direction, o.programs.drop)
    t:equal(probe.ping(a, "10.0.0.2", { count = 2, interval = 0.01, timeout = 0.1 }).received, 0)
    t:ok(o.maps.hits:get(6) > 0)
    attachment:detach()
    t:equal(probe.ping(a, "10.0.0.2", { count = 2, interval = 0.01 }).received, 2)
  end)
end

test.case("an anchor is an attachment, a program or a program's id", function(t)
  t:requires("tcx")
  local _, _, near = pair(t)
  local p = object().programs
  local one = tcx.attach(near, "egress", p.one)
  for _, anchor in ipairs({ one, p.one, p.one.id }) do
    tcx.attach(near, "egress", p.two, { before = anchor }):detach()
    local two = tcx.attach(near, "egress", p.two, { before = anchor })
    local three = tcx.attach(near, "egress", p.three, { after = anchor })
    t:equal(hooks.names(tcx.query(near, "egress")), { "two", "one", "three" })
    two:detach()
    three:detach()
  end
  local stranger = t:raises(function()
    tcx.attach(near, "egress", p.two, { after = p.four })
  end, "ENOENT")
  t:equal(stranger.message, '"four" is not on this hook')
  t:raises(function()
    tcx.attach(near, "egress", p.two, { after = one, first = true })
  end, "say different places")
  t:raises(function()
    tcx.attach(near, "egress", p.two, { after = "one" })
  end, 'after must be an Attachment, a Program or a program id, got "one"')
end)

test.case("a hook that has changed is not changed again by one who did not look", function(t)
  t:requires("tcx")
  local _, _, near = pair(t)
  local p = object().programs
  local before = tcx.query(near, "ingress")
  t:equal(before.programs, {})
  tcx.attach(near, "ingress", p.one, { expected_revision = before.revision })
  local stale = t:raises(function()
    tcx.attach(near, "ingress", p.two, { expected_revision = before.revision })
  end, "ESTALE")
  local now = tcx.query(near, "ingress")
  t:equal(
    stale.message,
    ("the hook has changed: revision %d was expected, it is %d"):format(before.revision, now.revision)
  )
  t:equal(stale.op, "tcx.attach")
  t:equal(stale.subject, "v0, ingress")
  tcx.attach(near, "ingress", p.two, { expected_revision = now.revision })
  t:equal(#tcx.query(near, "ingress").programs, 2)
end)

test.case("query tells who runs, and by which link", function(t)
  t:requires("tcx")
  local _, _, near, far = pair(t)
  local p = object().programs
  local attachment = tcx.attach(near, "ingress", p.one)
  local found = tcx.query(near, "ingress").programs
  t:equal(found, {
    { id = p.one.id, name = "one", tag = p.one.tag, link_id = attachment:info().link_id },
  })
  t:equal(tcx.query(near, "egress").programs, {})
  t:equal(tcx.query(far, "ingress").programs, {})
  local listed
  for _, each in ipairs(bpf.links()) do
    if each.id == found[1].link_id then
      listed = each
    end
  end
  t:equal(listed.type, "tcx")
  t:equal(listed.program_id, p.one.id)
  t:equal(listed.index, near.index)
end)

test.case("an attachment says where it is, until it is nowhere", function(t)
  t:requires("tcx")
  local _, _, near = pair(t)
  local p = object().programs
  local attachment = tcx.attach(near, "egress", p.one, { slot = "meter" })
  t:equal(attachment.slot, "meter")
  t:equal(attachment.link, near)
  t:equal(tostring(attachment), "Attachment(meter on tcx egress of v0)")
  local info = attachment:info()
  t:equal(info.link_id ~= nil, true)
  info.link_id = nil
  t:equal(info, {
    hook = "tcx",
    side = "egress",
    link = "v0",
    index = near.index,
    slot = "meter",
    program = "one",
    program_id = p.one.id,
  })
  attachment:detach()
  attachment:detach()
  t:raises(function()
    attachment:info()
  end, "ENODEV")
  t:raises(function()
    attachment:replace(p.two)
  end, "attachment:replace%(v0, egress%): it has been detached")
end)

test.case("one program, one slot, one place", function(t)
  t:requires("tcx")
  local _, _, near, far = pair(t)
  local p = object().programs
  local first = tcx.attach(near, "egress", p.one)
  local again = t:raises(function()
    tcx.attach(near, "egress", p.one)
  end, "EEXIST")
  t:equal(again.message, 'program "one" is already attached here')
  t:raises(function()
    tcx.attach(near, "egress", p.one, { slot = "another" })
  end, "EEXIST")
  local taken = t:raises(function()
    tcx.attach(near, "egress", p.two, { slot = "one" })
  end, "EEXIST")
  t:equal(taken.message, 'slot "one" is taken on this hook')
  -- Another hook, another link: another place.
  tcx.attach(near, "ingress", p.one)
  tcx.attach(far, "egress", p.one)
  first:detach()
  tcx.attach(near, "egress", p.two, { slot = "one" })
  t:equal(hooks.names(tcx.query(near, "egress")), { "two" })
end)

test.case("a hundred replacements lose no packet", function(t)
  t:requires("tcx")
  local a, _, near = pair(t)
  local o = object()
  local p = o.programs
  t:eventually(function()
    return probe.ping(a, "10.0.0.2", { count = 1 }).received == 1
  end)
  for _, direction in ipairs({ "ingress", "egress" }) do
    local attachment = tcx.attach(near, direction, p.one, { slot = "swapped" })
    hooks.take_turns(t, a, attachment, { p.one, p.two }, { rounds = 100, pause = 0.01, count = 200, interval = 0.005 })
    t:equal(attachment:info().program, "one")
    t:equal(hooks.names(tcx.query(near, direction)), { "one" })
    attachment:detach()
  end
  local hits = o.maps.hits
  -- Each packet met one of the two, never both, never neither; ARP may add a few.
  t:ok(hits:get(1) > 0 and hits:get(2) > 0)
  t:ok(hits:get(1) + hits:get(2) >= 400, ("met %d"):format(hits:get(1) + hits:get(2)))
end)

test.case("what cannot take the place of a program does not", function(t)
  t:requires("tcx")
  local _, _, near = pair(t)
  local p = object().programs
  local attachment = tcx.attach(near, "ingress", p.one)
  tcx.attach(near, "ingress", p.two)
  t:raises(function()
    attachment:replace(p.two)
  end, "EEXIST")
  t:raises(function()
    attachment:replace(p.frames)
  end, 'program "frames" is of type xdp, this hook takes tc')
  t:raises(function()
    attachment:replace("two")
  end, "must be a Program")
  t:equal(hooks.names(tcx.query(near, "ingress")), { "one", "two" })
end)

test.case("a device that has gone takes its programs with it", function(t)
  t:requires("tcx")
  local _, _, near = pair(t)
  local p = object().programs
  local attachment = tcx.attach(near, "ingress", p.one)
  near:delete()
  for _, call in ipairs({
    function()
      tcx.attach(near, "ingress", p.two)
    end,
    function()
      tcx.query(near, "ingress")
    end,
    function()
      attachment:replace(p.two)
    end,
    function()
      attachment:info()
    end,
  }) do
    t:raises(call, "ENODEV")
  end
  attachment:detach()
end)

test.case("a link made again under the old index starts with free slots", function(t)
  t:requires("tcx")
  local a = t:netns("a")
  local p = object().programs
  for _ = 1, 2 do
    local near = link.veth({ name = "near", index = 77, netns = a, peer = { name = "far", netns = a } })
    tcx.attach(near, "ingress", p.one)
    t:equal(hooks.names(tcx.query(near, "ingress")), { "one" })
    near:delete()
  end
end)

test.case("a handle does not keep a deleted namespace", function(t)
  t:requires("tcx")
  local a, b, near = pair(t)
  local p = object().programs
  local attachments = {
    tcx.attach(near, "ingress", p.one),
    cnf.tc.attach(near, "egress", p.two),
    cnf.xdp.attach(near, p.frames),
  }
  a:delete()
  -- The other end of the pair goes with it.
  t:eventually(function()
    return #b:links() == 1
  end)
  for _, attachment in ipairs(attachments) do
    t:raises(function()
      attachment:info()
    end, "ENODEV")
    attachment:detach()
  end
end)

test.case("63 programs fit a hook", function(t)
  t:requires("tcx")
  local _, _, near = pair(t)
  local text = ""
  for i = 1, 64 do
    text = text .. ('SEC("tc/%d") int p%d(void *skb) { return -1; }\n'):format(i, i)
  end
  local many = source.compile(text)
  for i = 1, 63 do
    tcx.attach(near, "ingress", many.programs["p" .. i])
  end
  t:equal(#tcx.query(near, "ingress").programs, 63)
  t:raises(function()
    tcx.attach(near, "ingress", many.programs.p64)
  end, "the hook is full")
end)

test.case("bpf.attach takes tcx where the kernel has it, else clsact", function(t)
  local a, _, near = pair(t)
  local o = object()
  local attachment = bpf.attach(near, "egress", o.programs.three)
  t:equal(attachment:info().hook, bpf.has("tcx").available and "tcx" or "tc")
  bpf.attach(near, "egress", o.programs.one, { before = attachment })
  bpf.attach(near, "egress", o.programs.four, { last = true })
  bpf.attach(near, "egress", o.programs.two, { after = o.programs.one })
  t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
  t:equal(hooks.met(o.maps), { 1, 2, 3, 4 })
  attachment:replace(o.programs.pass)
  o.maps.turns:clear()
  t:equal(probe.ping(a, "10.0.0.2", { count = 1 }).received, 1)
  t:equal(hooks.met(o.maps), { 1, 2, 5 })
end)

test.case("nothing remains of a script that has ended", function(t)
  t:requires("tcx")
  local a, _, near = pair(t)
  local o = object()
  local path = os.tmpname()
  t:defer(function()
    os.remove(path)
  end)
  local file <close> = assert(io.open(path, "w"))
  file:write(([[
    local cnf = require("cnf")
    local o = cnf.bpf.compile({ source = %q })
    local near = cnf.netns.get(%q):link("v0")
    cnf.tcx.attach(near, "ingress", o.programs.one)
    cnf.tcx.attach(near, "egress", o.programs.two)
    cnf.tc.attach(near, "egress", o.programs.three)
    cnf.xdp.attach(near, o.programs.frames)
    collectgarbage()
    print("attached")
  ]]):format(source.whole(hooks.COUNTED .. PROGRAMS), a.name))
  file:close()
  local binary = netns.host():exec({ "readlink", "/proc/" .. cnf._test.pid() .. "/exe" }).stdout
  local script = netns.host():spawn({ binary:match("%S+"), path })
  local line = script:lines()()
  t:equal(line, "attached")
  -- The attachments keep it running, and belong to it.
  t:never(function()
    return #tcx.query(near, "ingress").programs ~= 1
  end, { during = 0.2 })
  t:equal(hooks.names(tcx.query(near, "egress")), { "two" })
  t:equal(#cnf.xdp.query(near).programs, 1)
  t:equal(#cnf.tc.query(near, "egress").programs, 1)
  script:kill("TERM")
  script:wait(20)
  t:equal(tcx.query(near, "ingress").programs, {})
  t:equal(tcx.query(near, "egress").programs, {})
  t:equal(cnf.xdp.query(near).programs, {})
  t:equal(cnf.tc.query(near, "egress").programs, {})
  -- An object alone keeps nobody.
  local text = source.whole(hooks.COUNTED .. PROGRAMS)
  local loader = ("local o = require('cnf').bpf.compile{source=%q} print(o.name)"):format(text)
  local alone = netns.host():exec({ binary:match("%S+"), "-e", loader }, { timeout = 180 })
  t:equal(alone.stdout, "source\n")
  t:ok(o)
end)
