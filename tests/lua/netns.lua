--- Namespaces: made, found, entered from both sides, deleted only when they are ours.
local cnf = require("cnf")
local test, netns, link = cnf.test, cnf.netns, cnf.link

--- A namespace made by another tool, gone after the case.
local function foreign(t, what)
  local ns = t:netns(what)
  local name = ns.name .. "-ip"
  ns:delete()
  netns.host():exec({ "ip", "netns", "add", name })
  t:defer(function()
    netns.host():exec({ "ip", "netns", "delete", name }, { check = false })
  end)
  return name
end

--- Runs a chunk as an instance of its own, which ends and undoes what it did.
local function run(chunk)
  local line = 'exec /proc/$PPID/exe -q -e "$0"'
  return netns.host():exec({ "sh", "-c", line, chunk .. "\nos.exit(0)" })
end

test.case("new: visible to ip netns, loopback up", function(t)
  local ns = t:netns("new")
  local listed = netns.host():exec("ip netns list").stdout
  t:ok(("\n" .. listed):find("\n" .. ns.name, 1, true), listed)
  t:equal(ns:link("lo"):info().up, true)
  t:ok(netns.exists(ns.name))
  t:equal(netns.get(ns.name), ns)
  t:equal(tostring(ns), ("Netns(%s)"):format(ns.name))
  local found = false
  for _, name in ipairs(netns.list()) do
    found = found or name == ns.name
  end
  t:ok(found)
end)

test.case("tools enter ours, and we enter theirs", function(t)
  local ns = t:netns("ours")
  link.veth({ name = "v0", netns = ns, peer = { name = "v1", netns = ns } })
  local seen = netns.host():exec({ "ip", "netns", "exec", ns.name, "ls", "-d", "/sys/class/net/v0" }).stdout
  t:equal(seen, "/sys/class/net/v0\n")
  local name = foreign(t, "theirs")
  netns.host():exec({ "ip", "-n", name, "link", "add", "x0", "type", "veth", "peer", "x1" })
  local theirs = netns.get(name)
  t:equal(theirs:link("x0").kind, "veth")
  t:equal(#theirs:links(), 3)
  t:equal(theirs:exec("cd /sys/class/net && echo */").stdout, "lo/ x0/ x1/\n")
end)

test.case("the kernel's own settings, whatever the host has", function(t)
  local ns = t:netns("defaults")
  for key, value in pairs({
    ["net.ipv4.conf.all.rp_filter"] = "0",
    ["net.ipv4.conf.default.rp_filter"] = "0",
    ["net.ipv4.ip_forward"] = "0",
    ["net.ipv6.conf.default.accept_dad"] = "0",
  }) do
    t:equal(ns:sysctl(key), value, key)
  end
end)

test.case("bad names, taken names, names of nothing", function(t)
  local ns = t:netns("taken")
  for _, name in ipairs({ "", ".", "..", "a/b", ("x"):rep(256) }) do
    t:raises(function()
      netns.new(name)
    end, "EINVAL")
    t:equal(netns.exists(name), false)
  end
  local error = t:raises(function()
    netns.new(ns.name)
  end, "EEXIST")
  t:ok(error.hint:find("netns.get", 1, true))
  error = t:raises(function()
    netns.get(ns.name .. "x")
  end, "ENOENT")
  t:equal(error.hint, ("did you mean %q?"):format(ns.name))
  t:raises(function()
    netns.new({})
  end, "EINVAL")
  t:raises(function()
    netns.new(ns.name .. "-o", { link = 1 })
  end, "unknown option")
  t:equal(netns.exists(ns.name .. "-o"), false)
end)

test.case("the host's namespace", function(t)
  local host = netns.host()
  t:equal(host.name, "")
  t:equal(host, netns.host())
  t:equal(tostring(host), "Netns(host)")
  t:ok(host:link("lo"):info().up ~= nil)
  t:raises(function()
    host:delete()
  end, "EPERM")
end)

test.case("handles: equal, keys of tables, strict about fields", function(t)
  local ns = t:netns("handle")
  local names = { [ns] = "ours" }
  t:equal(names[netns.get(ns.name)], "ours")
  t:ok(ns ~= netns.host())
  local error = t:raises(function()
    return ns.linkz
  end, "EINVAL")
  t:equal(error.hint, 'did you mean "link"?')
  t:raises(function()
    ns.name = "other"
  end, "EINVAL")
end)

test.case("a deleted namespace raises ENODEV with its name", function(t)
  local ns = t:netns("gone")
  local v = link.veth({ name = "v0", netns = ns, peer = { name = "v1", netns = ns } })
  ns:delete()
  t:equal(netns.exists(ns.name), false)
  for what, use in pairs({
    links = function()
      ns:links()
    end,
    exec = function()
      ns:exec("true")
    end,
    info = function()
      v:info()
    end,
    delete = function()
      ns:delete()
    end,
  }) do
    t:ok(tostring(t:raises(use, "ENODEV")):find(what == "info" and "v0" or ns.name, 1, true), what)
  end
  t:equal(v.name, "v0")
end)

test.case("deleted under us: ENODEV; another under its name is another", function(t)
  local name = foreign(t, "under")
  local old = netns.get(name)
  netns.host():exec({ "ip", "netns", "delete", name })
  t:eventually(function()
    return not pcall(old.links, old)
  end)
  t:raises(function()
    old:links()
  end, "ENODEV")
  netns.host():exec({ "ip", "netns", "add", name })
  t:raises(function()
    old:links()
  end, "ENODEV")
  local new = netns.get(name)
  t:ok(new ~= old)
  t:equal(#new:links(), 1)
end)

test.case("what was not created is never deleted", function(t)
  local name = foreign(t, "foreign")
  local theirs = netns.get(name)
  netns.host():exec({ "ip", "-n", name, "link", "add", "x0", "type", "veth", "peer", "x1" })
  t:raises(function()
    theirs:delete()
  end, "EPERM")
  t:raises(function()
    theirs:link("x0"):delete()
  end, "EPERM")
  run(([[
    local ns = netns.get(%q)
    ns:link("x0"):up()
    link.bridge{name = "br0", netns = ns}
    link.veth{name = "y0", netns = ns, peer = {name = "y1", netns = ns}}
  ]]):format(name))
  local left = {}
  for _, l in ipairs(theirs:links()) do
    left[#left + 1] = l.name
  end
  table.sort(left)
  t:equal(left, { "lo", "x0", "x1" })
  t:equal(theirs:link("x0"):info().up, false)
end)

test.case("all that was done in a foreign namespace is undone", function(t)
  local name = foreign(t, "undo")
  local ip = function(...)
    return netns.host():exec({ "ip", "-n", name, ... }).stdout
  end
  ip("link", "add", "x0", "type", "veth", "peer", "x1")
  for _, cidr in ipairs({ "10.0.0.1/24", "10.0.0.2/24", "fd00::1/64" }) do
    ip("address", "add", cidr, "dev", "x0")
  end
  ip("link", "set", "x0", "up", "alias", "theirs")
  ip("link", "set", "x1", "up")
  ip("route", "add", "10.9.0.0/16", "via", "10.0.0.9")
  ip("route", "add", "fd09::/48", "via", "fd00::9")
  -- Their own address takes a second of duplicate address detection; the state is compared when it is there.
  t:eventually(function()
    return not ip("-6", "address", "show"):find("tentative")
  end)
  local function state()
    local parts = {
      ip("-o", "address", "show"),
      ip("route", "show", "table", "all"),
      ip("-6", "route", "show", "table", "all"),
      ip("rule"),
      ip("-6", "rule"),
      ip("neigh", "show", "nud", "permanent"),
      ip("-o", "link", "show", "x0"):gsub("qdisc %S+ ", ""),
    }
    local text = table.concat(parts, "\n"):gsub("%S+_lft %S+", ""):gsub(" nodad", "")
    local lines = {}
    for line in text:gmatch("[^\n]+") do
      lines[#lines + 1] = line
    end
    table.sort(lines)
    return lines
  end
  local before = state()
  local forward = netns.get(name):sysctl("net.ipv4.conf.x0.forwarding")
  run(([[
    local ns = netns.get(%q)
    local x0 = ns:link("x0")
    ns:sysctl("net.ipv4.ip_forward", 1)
    ns:sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    ns:sysctl("net.ipv6.conf.all.disable_ipv6", 0)
    x0:add_address("10.7.0.1/24")
    x0:add_address("fd07::1/64")
    ns:route{dst = "10.8.0.0/16", via = "10.0.0.7"}
    ns:route{dst = "fd08::/48", dev = x0}
    ns:rule{from = "10.1.0.0/16", table = 100}
    ns:rule{from = "fd01::/16", table = 100}
    ns:neigh{dst = "10.0.0.77", lladdr = "02:00:00:00:00:07", dev = x0}
    x0:delete_address("10.0.0.1/24")
    x0:set{mtu = 1200, alias = "ours", txqueuelen = 77, group = 7}
    x0:qdisc{kind = "tbf", rate = "10mbit", burst = "10k", latency = "50ms"}
    x0:down()
    x0:rename("z0")
  ]]):format(name))
  -- Link-local addresses come back a moment after their link.
  pcall(t.eventually, t, function()
    t:equal(state(), before)
    return true
  end)
  t:equal(state(), before)
  t:equal(netns.get(name):sysctl("net.ipv4.ip_forward"), "0")
  t:equal(netns.get(name):sysctl("net.ipv4.conf.x0.forwarding"), forward)
end)

test.case("delete ends what runs inside", function(t)
  local ns = t:netns("inside")
  local p = ns:spawn({ "cat" })
  cnf.probe.serve(ns, { tcp = 80 })
  ns:delete()
  t:equal(p:wait(5).code, 128 + 9)
end)
