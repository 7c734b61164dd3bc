--- XDP: native where the driver can, generic where it cannot, one program a device.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local link, probe, test, xdp = cnf.link, cnf.probe, cnf.test, cnf.xdp
local hooks, pair = require("hooks"), require("pair")

local object = hooks.counted([[
SEC("xdp") int pass(struct xdp_md *ctx) { return ran(0, XDP_PASS); }
SEC("xdp.frags") int frags(struct xdp_md *ctx) { return ran(1, XDP_PASS); }
SEC("xdp/named") int drop(struct xdp_md *ctx) { return ran(0, XDP_DROP); }
SEC("tc") int packets(struct __sk_buff *skb) { return -1; }
]])

for _, mode in ipairs({ "native", "generic" }) do
  test.case("frames meet the program, " .. mode, function(t)
    local a, _, near = pair(t)
    local o = object()
    local attachment = xdp.attach(near, o.programs.pass, { mode = mode })
    t:equal(attachment:info().mode, mode)
    for _, address in ipairs({ "10.0.0.2", "fd00::2" }) do
      t:equal(probe.ping(a, address, { count = 2, interval = 0.01 }).received, 2)
    end
    t:ok(o.maps.hits:get(0) >= 4)
    attachment:replace(o.programs.drop)
    t:equal(probe.ping(a, "10.0.0.2", { count = 2, interval = 0.01, timeout = 0.1 }).received, 0)
    attachment:detach()
    t:equal(probe.ping(a, "10.0.0.2", { count = 2, interval = 0.01 }).received, 2)
    t:equal(xdp.query(near), { revision = 0, programs = {} })
  end)
end

test.case("native where the driver can, generic where it cannot, and it says so", function(t)
  local _, b, near = pair(t)
  local p = object().programs
  t:equal(xdp.attach(near, p.pass):info().mode, "native")
  -- A bridge and loopback have no native XDP.
  local bridge = link.bridge({ name = "br0", netns = b })
  local lo = b:link("lo")
  for _, plain in ipairs({ bridge, lo }) do
    local attachment = xdp.attach(plain, p.pass)
    t:equal(attachment:info().mode, "generic")
    t:equal(xdp.query(plain).programs[1].id, p.pass.id)
    attachment:detach()
    local refused = t:raises(function()
      xdp.attach(plain, p.pass, { mode = "native" })
    end, "natively")
    t:equal(refused.op, "xdp.attach")
    t:equal(xdp.query(plain).programs, {})
  end
  t:raises(function()
    xdp.attach(b:link("w0"), p.pass, { mode = "offload" })
  end, "cannot run xdp on its card")
  local misspelt = t:raises(function()
    xdp.attach(bridge, p.pass, { mode = "nativ" })
  end, "EINVAL")
  t:equal(misspelt.hint, 'did you mean "native"?')
end)

test.case("one program a device", function(t)
  local _, _, near = pair(t)
  local o = object()
  local p = o.programs
  local first = xdp.attach(near, p.pass)
  for _, program in ipairs({ p.frags, p.pass }) do
    local busy = t:raises(function()
      xdp.attach(near, program)
    end, "EBUSY")
    t:equal(
      busy.message,
      ('"pass" (id %d, native) holds the hook: one xdp program a device'):format(p.pass.id)
    )
  end
  t:equal(xdp.query(near).programs, {
    { id = p.pass.id, name = "pass", tag = p.pass.tag, link_id = first:info().link_id },
  })
  first:detach()
  xdp.attach(near, p.frags)
  t:equal(xdp.query(near).programs[1].name, "frags")
end)

test.case("a hundred replacements lose no frame", function(t)
  local a, _, near = pair(t)
  local o = object()
  local p, hits = o.programs, o.maps.hits
  local attachment = xdp.attach(near, p.pass)
  probe.ping(a, "10.0.0.2", { count = 1 })
  hooks.take_turns(t, a, attachment, { p.pass, p.frags }, { rounds = 100, pause = 0.01, count = 200, interval = 0.005 })
  t:ok(hits:get(0) > 0 and hits:get(1) > 0 and hits:get(0) + hits:get(1) >= 200)
end)

test.case("frames larger than a page want xdp.frags", function(t)
  local _, _, near = pair(t)
  local p = object().programs
  near:peer():set({ mtu = 9000 })
  near:set({ mtu = 9000 })
  local refused = t:raises(function()
    xdp.attach(near, p.pass, { mode = "native" })
  end, "ERANGE")
  t:ok(refused.hint:find("xdp.frags", 1, true))
  local generic = xdp.attach(near, p.pass)
  t:equal(generic:info().mode, "generic")
  generic:detach()
  t:equal(xdp.attach(near, p.frags):info().mode, "native")
end)

test.case("a tc program is refused, and a device that has gone", function(t)
  local _, _, near = pair(t)
  local p = object().programs
  local wrong = t:raises(function()
    xdp.attach(near, p.packets)
  end, "EINVAL")
  t:equal(wrong.message, 'program "packets" is of type tc, this hook takes xdp')
  t:equal(wrong.hint, 'give it SEC("xdp")')
  local attachment = xdp.attach(near, p.pass)
  near:delete()
  t:raises(function()
    xdp.attach(near, p.pass)
  end, "ENODEV")
  t:raises(function()
    xdp.query(near)
  end, "ENODEV")
  t:raises(function()
    attachment:replace(p.frags)
  end, "ENODEV")
  attachment:detach()
end)
