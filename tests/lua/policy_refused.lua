--- The policy router: what it refuses, in which words, and that nothing has changed afterwards.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test, policy, link = cnf.test, cnf.policy, cnf.link

--- Whether the error says this, or its hint does.
local function says(problem, text)
  return (tostring(problem) .. "\n" .. (problem.hint or "")):find(text, 1, true)
end

--- Policies that are refused, each with its code and a part of the message.
local function wrong(net)
  local h1, inside = net.link.h1, net.link.inside
  local gone = link.veth({ name = "gone", netns = net.ns })
  gone:delete()
  local shapes = {}
  for i = 1, 65 do
    shapes[i] = { from = "10.0.0.0/" .. (i - 1) // 8 + 8, to = "10.0.0.0/" .. (i - 1) % 8 + 8, action = "drop" }
  end
  local hops = {}
  for i = 1, 65 do
    hops[i] = { via = "10.1.1." .. i + 1, dev = h1 }
  end
  local by = { via = "10.1.1.2", dev = h1 }
  local function with(words)
    for word, value in pairs(by) do
      if words[word] == nil then
        words[word] = value
      end
    end
    return words
  end
  return {
    { { from = "10.0.0.0/8", dev = gone }, "ENODEV", "gone" },
    { { from = "10.0.0.0/8", action = "drop", mirror = gone }, "ENODEV", "gone" },
    { { from = "10.0.0.0/8", via = "10.2.0.1", dev = h1 }, "ENETUNREACH", "no route on h1 reaches the next hop 10.2.0.1" },
    { { from = "fd00::/8", via = "fd02::1", dev = h1 }, "ENETUNREACH", "no route on h1 reaches the next hop fd02::1" },
    { { from = "10.0.0.0/8", via = "10.1.2.2", dev = h1 }, "ENETUNREACH", "no route on h1" },
    { { from = "10.0.0.0/8", via = "192.0.2.1" }, "ENETUNREACH", "192.0.2.1" },
    { { from = "10.0.0.0/8", via = "10.0.0.1" }, "ENETUNREACH", "10.0.0.1" },
    { { from = "10.0.0.0/8", dev = net.far.h1 }, "EXDEV", "the router in namespace" },
    { { from = "10.0.0.0/8", action = "pass", mirror = net.far.h2 }, "EXDEV", "mirror h2 is in namespace" },
    { { from = "10.0.0.0/8", nexthops = { by, { dev = net.far.h1 } } }, "EXDEV", "share one namespace" },
    { with({ from = "10.0.0.0/8", to = "fd00::/8" }), "EINVAL", "different families" },
    { with({ from = "fd00::/8" }), "EINVAL", "IPv4 next hop" },
    { with({ from = "10.0.0.0/33" }), "EINVAL", "33" },
    { with({ from = "10.0.0" }), "EINVAL", "10.0.0" },
    { with({ from = 10 }), "EINVAL", "from" },
    { with({ form = "10.0.0.0/8" }), "EINVAL", '"from"' },
    { with({ dport = 80, proto = "icmp" }), "EINVAL", "have ports" },
    { with({ dport = 65536 }), "", "dport" },
    { with({ sport = -1 }), "", "sport" },
    { with({ mark = 1 << 32 }), "", "mark" },
    { with({ vlan = 4096 }), "EINVAL", "VLAN" },
    { with({ proto = "tpc" }), "EINVAL", "tcp" },
    { with({ action = "drop" }), "EINVAL", 'action "drop" goes nowhere' },
    { with({ action = "accept" }), "EINVAL", '"route", "drop" or "pass"' },
    { with({ nexthops = { by } }), "EINVAL", "not both" },
    { { from = "10.0.0.0/8" }, "EINVAL", "neither where to go nor what to do" },
    { { from = "10.0.0.0/8", action = "route" }, "EINVAL", "via, dev or nexthops" },
    { { from = "10.0.0.0/8", nexthops = {} }, "EINVAL", "nexthops" },
    { { from = "10.0.0.0/8", nexthops = { { weight = 1 } } }, "EINVAL", "via, dev or both" },
    { { from = "10.0.0.0/8", nexthops = { { via = "10.1.1.2", dev = h1, weight = 0 } } }, "EINVAL", "weight" },
    { { from = "10.0.0.0/8", nexthops = { { via = "10.1.1.2", gateway = h1 } } }, "EINVAL", "gateway" },
    { { from = "10.0.0.0/8", nexthops = hops }, "EINVAL", "at most 64 next hops" },
    { { from = "10.0.0.0/8", via = "224.0.0.1", dev = h1, onlink = true }, "EINVAL", "neighbour" },
    { { from = "10.0.0.0/8", via = "0.0.0.0", dev = h1, onlink = true }, "EINVAL", "neighbour" },
    { { from = "10.0.0.0/8", dev = "h9" }, "ENODEV", "h9" },
    { { from = "10.0.0.0/8", dev = 9 }, "EINVAL", "dev must be a Link" },
    { with({ from = "10.0.0.1/8" }), "EINVAL", "not a network" },
    { with({ to = "10.255.0.0/8" }), "EINVAL", "not a network" },
    { "from 10.0.0.0/8", "EINVAL", "policy" },
    { shapes, "E2BIG", "64" },
    inside = inside,
  }
end

test.case("a policy that is wrong is refused, and nothing has changed", function(t)
  local net = lab.new(t)
  local r = net:router()
  r:set({ net:by(1, { from = "100.0.0.0/8" }), net:by(2, { from = "2001::/16" }) })
  local list = r:list()
  local rows = wrong(net)
  for i, row in ipairs(rows) do
    local one, code, text = table.unpack(row)
    local all = type(one) == "table" and one[1] and one or { one }
    local good = net:by(2, { from = "100.1.1.0/24" })
    local problem = t:raises(function()
      r:set({ good, table.unpack(all) })
    end)
    local place = ("row %d: %s"):format(i, tostring(problem))
    t:ok(says(problem, text), place)
    t:ok(code == "" or problem.code == code, place)
    t:ok(problem.op == "router:set", place)
    t:equal(r:list(), list, place)
    if #all == 1 then
      problem = t:raises(function()
        r:add(one)
      end)
      t:equal({ problem.op, r:list() }, { "router:add", list }, place)
      if type(one) == "table" and not one.from and not one.to then
        problem = t:raises(function()
          policy.router({ attach = { { net.link.h3, "ingress" } }, default = one })
        end)
        t:equal(problem.op, "policy.router", place)
      end
    end
    t:equal(net:way(r, { from = "100.1.1.1", to = "200.1.1.1" }), "h1", place)
  end
  t:equal(net:way(r, { from = "2001::1", to = "2002::1" }), "h2")
  local stats = r:stats()
  t:equal({ stats[1].packets, stats[2].packets }, { #rows, 1 }, "counters went on")
end)

test.case("64 shapes for each family are taken", function(t)
  local net = lab.new(t)
  local r = net:router()
  local set = {}
  for i = 0, 63 do
    set[#set + 1] = { from = ("100.%d.0.0/%d"):format(i, i // 8 + 17), to = "200.0.0.0/" .. i % 8 + 8, action = "drop" }
    set[#set + 1] = { from = ("2001:db8:%x::/%d"):format(i, i // 8 + 64), to = "2001:db9::/" .. i % 8 + 32, action = "drop" }
  end
  r:set(set)
  for i = 0, 63 do
    t:equal(net:way(r, { from = ("100.%d.0.1"):format(i), to = "200.0.0.1" }), "none", "shape " .. i)
    t:equal(net:way(r, { from = ("2001:db8:%x::1"):format(i), to = "2001:db9::1" }), "none", "shape " .. i)
  end
end)

test.case("equal matches in one set are refused, and both named", function(t)
  local net = lab.new(t)
  local r = net:router()
  local before = { net:by(1, { from = "100.1.0.0/16" }) }
  r:set(before)
  local set = {
    net:by(1, { proto = "udp", dport = 7, family = 4, priority = 1 }),
    net:by(1, { from = "100.2.0.0/16" }),
    net:by(2, { proto = "udp", dport = 7, family = 4, priority = 2 }),
  }
  local e = t:raises(function()
    r:set(set)
  end, "%[1%] and %[3%] match the same")
  t:equal(e.code, "EEXIST")
  t:equal(#r:list(), 1)
  t:equal(net:way(r, { from = "100.1.1.1", to = "200.1.1.1" }), "h1", "nothing has changed")
end)

test.case("attachments of two namespaces, of none, of unknown hooks are refused, and nothing stays attached", function(t)
  local net = lab.new(t)
  local inside, h1 = net.link.inside, net.link.h1
  local gone = link.veth({ name = "gone", netns = net.ns })
  gone:delete()
  for _, row in ipairs({
    { { attach = { { h1, "egress" }, { net.far.h1, "ingress" } } }, "EXDEV", "share one namespace" },
    { { attach = { { h1, "egress" }, { inside, "primary" } } }, "EINVAL", "netkit" },
    { { attach = { { h1, "egress" }, { inside, "forward" } } }, "EINVAL", '"ingress" or "egress"' },
    { { attach = { { h1, "egress" }, { gone, "egress" } } }, "ENODEV", "gone" },
    { { attach = { { h1, "egress" }, { "h2", "egress" } } }, "EINVAL", "attach" },
    { { attach = { { h1, "egress" } }, default = { from = "10.0.0.0/8", action = "drop" } }, "EINVAL", "everything" },
    { { attach = { { h1, "egress" } }, default = { via = "10.7.0.1", dev = h1 } }, "ENETUNREACH", "10.7.0.1" },
    { { attach = { { h1, "egress" } }, defualt = { action = "drop" } }, "EINVAL", '"default"' },
    { { attach = {} }, "EINVAL", "attach" },
    { {}, "EINVAL", "attach" },
  }) do
    local problem = t:raises(function()
      policy.router(row[1])
    end, row[2])
    t:ok(says(problem, row[3]), tostring(problem))
    t:equal(problem.op, "policy.router", tostring(problem))
  end
  local where = cnf.bpf.has("tcx").available and cnf.tcx or cnf.tc
  t:equal(where.query(h1, "egress").programs, {})
end)

test.case("remove, explain and set say what they do not understand", function(t)
  local net = lab.new(t)
  local r = net:router()
  r:set({ { from = "100.0.0.0/8", action = "drop" } })
  for _, row in ipairs({
    { "remove", { from = "100.0.0.0/9" }, "ENOENT" },
    { "remove", { from = "100.0.0.0/8", proto = "tcp" }, "ENOENT" },
    { "remove", { form = "100.0.0.0/8" }, "EINVAL" },
    { "remove", nil, "EINVAL" },
    { "explain", { from = "10.0.0.1" }, "EINVAL" },
    { "explain", { from = "10.0.0.1", to = "fd00::1" }, "EINVAL" },
    { "explain", { from = "10.0.0.0/8", to = "10.0.0.1" }, "EINVAL" },
    { "explain", { from = "10.0.0.1", to = "10.0.0.2", prot = "tcp" }, "EINVAL" },
    { "set", { from = "10.0.0.0/8", action = "drop" }, "EINVAL" },
    { "set", nil, "EINVAL" },
    { "add", nil, "EINVAL" },
  }) do
    local word, argument, code = row[1], row[2], row[3]
    local problem = t:raises(function()
      r[word](r, argument)
    end, code)
    t:equal(problem.op, "router:" .. word)
  end
  t:equal(#r:list(), 1)
end)

test.case("what is listed can be set again", function(t)
  local net = lab.new(t)
  local r = net:router()
  local h1, h2 = net.link.h1, net.link.h2
  local set = {
    { from = "10.0.0.0/8", via = "10.1.1.2", dev = h1, action = "route" },
    { to = "10.0.0.7", via = "192.0.2.1", dev = h1, onlink = true, action = "route" },
    { to = "2001:db8::/32", dev = h2, action = "route", mirror = h1 },
    { vlan = 5, action = "pass", priority = 1000 },
    { from = "10.0.0.0/8", to = "10.1.0.0/16", proto = "tcp", sport = 1, dport = 2, mark = 3, priority = 7, action = "drop" },
    { proto = "icmpv6", action = "drop", priority = 1000 },
    { proto = "ah", action = "drop", priority = 1000 },
    { proto = "udplite", action = "drop", priority = 1000 },
    { proto = "200", action = "drop", priority = 1000 },
    {
      from = "10.9.0.0/16", action = "route",
      nexthops = { { via = "10.1.1.2", dev = h1, weight = 1 }, { via = "10.1.2.2", dev = h2, weight = 3 } },
    },
  }
  r:set(set)
  t:equal(r:list(), set)
  r:set(r:list())
  t:equal(r:list(), set)
  for _, one in ipairs(r:list()) do
    r:remove(one)
  end
  t:equal(r:list(), {})
end)

test.case("a router ends with its handle's detach", function(t)
  local net = lab.new(t)
  local r = net:router({ name = "edge" })
  r:set({ net:by(1, { from = "100.0.0.0/8" }) })
  t:equal({ r.name, tostring(r) }, { "edge", "Router(edge, 1 policy)" })
  t:equal(net:way(r, { from = "100.1.1.1", to = "200.1.1.1" }), "h1")
  r:detach()
  t:equal(net:way(r, { from = "100.1.1.1", to = "200.1.1.1" }), "h3")
  t:equal(r:stats()[1].packets, 1, "its counters are read afterwards")
  r:detach()
end)
