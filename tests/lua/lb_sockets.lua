--- The load balancer with real connections, beside other programs and on other links; what it refuses.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local balancing = require("balancing")
local hooks, lab = require("hooks"), require("lab")
local test, lb, probe, link = cnf.test, cnf.lb, cnf.probe, cnf.link

local slow = os.getenv("CNF_SLOW")
local SYN, ACK = 0x02, 0x10
local families, protocols = balancing.families, balancing.protocols
local backends, service, flows, each = balancing.backends, balancing.service, balancing.flows, balancing.each

--- Routes of a host that says it takes full segments, whatever its own link carries: what is too large for that link is
--- then for ICMP to tell.
local function default_routes(ns, via4, via6)
  ns:exec(("ip route add default via %s advmss 1460"):format(via4))
  ns:exec(("ip route add default via %s advmss 1440"):format(via6))
end

--- How often a namespace's kernel has said that a packet is too large to be forwarded.
local function too_big(ns)
  local counters = ns:exec("nstat -az IpFragFails Icmp6OutPktTooBigs").stdout
  return tonumber(counters:match("IpFragFails%s+(%d+)")) + tonumber(counters:match("Icmp6OutPktTooBigs%s+(%d+)"))
end

--- A client, a balancer, backends with servers that answer with their number.
local function stage(t, count, options)
  options = options or {}
  local net = { client = t:netns("lb-c"), gate = t:netns("lb-g"), backends = {}, servers = {} }
  net.eth0, net.front = link.veth({
    name = "eth0", netns = net.client, address = { "10.0.0.2/24", "fd00::2/64" },
    peer = { name = "front", netns = net.gate, address = { "10.0.0.1/24", "fd00::1/64" } },
  })
  net.client:route({ dst = "default", via = "10.0.0.1" })
  net.client:route({ dst = "default", via = "fd00::1" })
  net.gate:sysctl("net.ipv4.ip_forward", 1)
  net.gate:sysctl("net.ipv6.conf.all.forwarding", 1)
  for i = 1, count do
    local ns = t:netns("lb-b" .. i)
    link.veth({
      name = "eth0", netns = ns, mtu = options.mtu,
      address = { ("10.1.%d.2/24"):format(i), ("fd01:%d::2/64"):format(i) },
      peer = {
        name = "b" .. i, netns = net.gate, mtu = options.mtu,
        address = { ("10.1.%d.1/24"):format(i), ("fd01:%d::1/64"):format(i) },
      },
    })
    default_routes(ns, ("10.1.%d.1"):format(i), ("fd01:%d::1"):format(i))
    net.backends[i] = ns
    for _, proto in ipairs(protocols) do
      net.servers[proto .. i] = probe.serve(ns, { [proto] = 8080, reply = options.reply and options.reply .. i })
    end
  end
  return net
end

test.case("requests and replies through sockets, with every checksum right", function(t)
  local net = stage(t, 3, { reply = "server " })
  each(function(row, proto)
    local s = lb.service({
      name = "web", vip = row.text, proto = proto, attach = { net.front }, backends = backends(row, 3),
    })
    local count = 40
    local seen = {}
    for _ = 1, count do
      local reply = probe[proto](net.client, row.text, { timeout = 3 }).reply
      seen[reply] = (seen[reply] or 0) + 1
    end
    local stats = s:stats()
    for i = 1, 3 do
      t:equal(seen["server " .. i] or 0, stats[i].begun)
      if proto == "udp" then
        t:equal({ stats[i].requests.packets, stats[i].replies.packets }, { stats[i].begun, stats[i].begun })
      end
    end
    t:equal(stats.total.begun, count)
    if proto == "tcp" then
      t:eventually(function()
        return s:connections() == 0
      end)
    end
    s:detach()
    t:raises(function()
      probe[proto](net.client, row.text, { timeout = 0.3 })
    end)
  end)
end)

test.case("much data, segments and fragments both ways", function(t)
  local net = stage(t, 2)
  for _, row in ipairs(families) do
    local tcp = lb.service({ name = "tcp", vip = row.text, attach = { net.front }, backends = backends(row, 2) })
    local text = ("0123456789abcdef"):rep(60000)
    t:equal(probe.tcp(net.client, row.text, { send = text, timeout = 20 }).reply == text, true, "what was sent comes back")
    local total = tcp:stats().total
    t:ok(total.requests.bytes > #text and total.requests.packets > #text / 1448, "segments are counted, not bursts")
    local udp = lb.service({ name = "udp", vip = row.text, proto = "udp", attach = { net.front }, backends = backends(row, 2) })
    for _, size in ipairs({ 1, 1400, 1500, 4000, 20001 }) do
      text = ("x"):rep(size)
      t:equal(probe.udp(net.client, row.text, { send = text, timeout = 3 }).reply == text, true, size .. " bytes")
    end
    tcp:detach()
    udp:detach()
  end
end)

test.case("ICMP errors come to whom they concern", function(t)
  -- The links to the backends carry less than the client's, and nobody but ICMP tells it.
  local net = stage(t, 1, { mtu = 1280 })
  for _, row in ipairs(families) do
    local s = lb.service({ name = "tcp", vip = row.text, attach = { net.front }, backends = backends(row, 1) })
    local text = ("0123456789abcdef"):rep(20000)
    local said = too_big(net.gate)
    t:equal(probe.tcp(net.client, row.text, { send = text, timeout = 10 }).reply == text, true, "requests find their size")
    t:ok(too_big(net.gate) > said, "by what the gate says")
    s:detach()
    -- The backend's own refusal: port unreachable, from the virtual address.
    local dead = { address = row.backend:format(1), port = 9999 }
    s = lb.service({ name = "udp", vip = row.text, proto = "udp", attach = { net.front }, backends = { dead } })
    t:raises(function()
      probe.udp(net.client, row.text, { timeout = 2 })
    end, "ECONNREFUSED")
    s:detach()
  end
end)

test.case("a backend hears of the path's MTU behind the balancer", function(t)
  local net = stage(t, 1)
  -- client --- far --- uplink: the link to the client carries less than the backend's.
  local far = t:netns("lb-far")
  local _, uplink = link.veth({
    name = "uplink", netns = far, address = { "10.7.0.2/24", "fd07::2/64" },
    peer = { name = "uplink", netns = net.gate, address = { "10.7.0.1/24", "fd07::1/64" } },
  })
  link.veth({
    name = "down", netns = far, mtu = 1280, address = { "10.8.0.1/24", "fd08::1/64" },
    peer = { name = "up", netns = net.client, mtu = 1280, address = { "10.8.0.2/24", "fd08::2/64" } },
  })
  far:sysctl("net.ipv4.ip_forward", 1)
  far:sysctl("net.ipv6.conf.all.forwarding", 1)
  far:route({ dst = "default", via = "10.7.0.1" })
  far:route({ dst = "default", via = "fd07::1" })
  net.gate:route({ dst = "10.8.0.0/24", via = "10.7.0.2" })
  net.gate:route({ dst = "fd08::/64", via = "fd07::2" })
  for i, row in ipairs(families) do
    local six = row.family == 6
    net.client:exec(("ip route add %s via %s"):format(row.vip, six and "fd08::1 advmss 1440" or "10.8.0.1 advmss 1460"))
    local s = lb.service({ name = "web" .. i, vip = row.text, attach = { uplink }, backends = backends(row, 1) })
    local text = ("0123456789abcdef"):rep(20000)
    local said = too_big(far)
    local answer = probe.tcp(net.client, row.text, {
      send = text, timeout = 10, source = six and "fd08::2" or "10.8.0.2",
    })
    t:equal(answer.reply == text, true, "replies find their size")
    t:ok(too_big(far) > said, "by what the router before the client says")
    s:detach()
  end
end)

test.case("checksums that are whole, that are wrong, that are not there", function(t)
  local net = stage(t, 1)
  local from_mac, to_mac = net.eth0:info().mac, net.front:info().mac
  local function send(packet)
    cnf._test.send_frames(net.eth0, { lab.frame(packet, 1, to_mac, from_mac) })
  end
  for _, row in ipairs(families) do
    local udp = lb.service({ name = "udp", vip = row.text, proto = "udp", attach = { net.front }, backends = backends(row, 1) })
    local server = net.servers.udp1
    local answered = server:stats().requests
    --- One datagram, and whether the server got it.
    local function got(packet)
      packet.from, packet.to, packet.proto, packet.dport = row.from, row.vip, "udp", 80
      local forwarded = udp:stats().total.requests.packets
      send(packet)
      t:eventually(function()
        return udp:stats().total.requests.packets == forwarded + 1
      end)
      -- What comes behind it shows that it has been looked at.
      probe.udp(net.client, row.text, { send = "after" })
      local now = server:stats().requests
      local more = now - answered
      answered = now
      return more == 2
    end
    for size = 8, 11 do
      for sport = 1, 20 do
        t:ok(got({ sum = true, size = size, sport = 5000 + sport }), "a whole checksum, " .. sport)
      end
    end
    -- None at all: IPv4 allows that, IPv6 does not (RFC 8200, section 8.1), and no checksum is made up.
    t:equal(got({ size = 32, sport = 6000 }), row.family == 4)
    udp:detach()
    local tcp = lb.service({ name = "tcp", vip = row.text, attach = { net.front }, backends = backends(row, 1) })
    for sport = 1, 20 do
      send({ from = row.from, to = row.vip, proto = "tcp", sport = 7000 + sport, dport = 80, flags = SYN, sum = true, size = 8 })
    end
    t:eventually(function()
      return tcp:stats().total.replies.packets >= 20
    end)
    tcp:detach()
  end
end)

test.case("a connection through sockets lives through every change", function(t)
  local net = stage(t, 2)
  local row = families[1]
  local servers = {}
  for i, ns in ipairs(net.backends) do
    servers[i] = ns:spawn({ "busybox", "nc", "-l", "-p", "9000", "-e", "cat" })
    t:eventually(function()
      return ns:exec("ss --no-header --listening --tcp --numeric").stdout:find(":9000 ", 1, true)
    end)
  end
  local function at(i)
    return { address = row.backend:format(i), port = 9000 }
  end
  local s = lb.service({ name = "web", vip = row.text, attach = { net.front }, backends = { at(1) } })
  local client = net.client:spawn({ "bash", "-c", [[
    exec 3<>/dev/tcp/192.0.2.1/80
    while read -r line; do echo "$line" >&3; read -r -u 3 reply; echo "$reply"; done
  ]] })
  local lines = client:lines()
  local function say(word)
    client:write(word .. "\n")
    return lines()
  end
  t:equal(say("first"), "first")
  s:set_backends({ at(1), at(2) })
  t:equal(say("second"), "second")
  s:drain(at(1))
  t:equal(say("third"), "third")
  s:set_backends({ at(2) })
  t:equal(say("fourth"), "fourth")
  t:equal({ s:connections(at(1)), s:connections(at(2)) }, { 1, 0 })
  client:kill()
  t:eventually(function()
    return s:connections() == 0
  end)
  for _, server in ipairs(servers) do
    server:kill()
  end
end)

test.case("set_backends while packets come: none is lost, none goes astray", function(t)
  local net = stage(t, 3, { reply = "server " })
  local row = families[1]
  local s = lb.service({ name = "web", vip = row.text, proto = "udp", attach = { net.front }, backends = backends(row, 3) })
  local done = false
  local changer = cnf.task.spawn(function()
    for i = 1, slow and 10 or 40 do
      local list = backends(row, 3)
      table.remove(list, i % 3 + 1)
      s:set_backends(i % 2 == 0 and list or backends(row, 3, { i, 1, 1 }))
      cnf.task.sleep(0.002)
    end
    done = true
  end)
  local asked = 0
  while not done do
    t:ok(probe.udp(net.client, row.text, { timeout = 2 }).reply:find("^server "))
    asked = asked + 1
  end
  changer:join()
  t:equal(s:stats().total.requests.packets, asked)
  t:equal(s:stats().total.unserved.packets, 0)
end)

test.case("an address of a hook is one service's, and free again when that is detached", function(t)
  local net = stage(t, 1)
  local options = { name = "web", vip = "192.0.2.7:80", attach = { { net.front, "ingress" } }, backends = { "10.0.0.9:80" } }
  local first = lb.service(options)
  options.name = "shop"
  t:raises(function()
    lb.service(options)
  end, 'service "web" has 192.0.2.7:80/tcp on ingress of .* already, by .*lb_sockets%.lua:%d+')
  first:detach()
  lb.service(options)
end)

test.case("with the policy router behind it", function(t)
  local net = lab.new(t)
  -- The router is there first, and yet sees what the balancer has made of the packet.
  local r = net:router()
  for _, row in ipairs(families) do
    local s = service(net, row, "tcp", { { address = row.backend:format(9), port = 8080 } })
    r:set({ net:by(2, { to = row.backend:format(9), family = row.family }), { to = row.vip, action = "drop" } })
    local way, note = net:way(r, flows(row, "tcp", 1)[1])
    t:equal({ way, note.ttl }, { "h2", 63 })
    t:equal({ r:stats()[1].packets, r:stats()[2].packets }, { 1, 0 })
    s:detach()
    t:equal((net:way(r, flows(row, "tcp", 1)[1])), "none", "without the balancer the router sees the virtual address")
  end
end)

test.case("on a link without a link header", function(t)
  local net = lab.new(t)
  local tun = link.tun({ name = "tun0", netns = net.ns, address = { "10.5.0.1/24", "fd05::1/64" } })
  -- The router behind it shows where the packet is going.
  local r = net:router({ attach = { { tun, "egress" } } })
  for _, row in ipairs(families) do
    local s = service(net, row, "udp", { backends(row, 9)[9] }, { attach = { { tun, "egress" } } })
    r:set({ net:by(2, { to = row.backend:format(9), family = row.family }), { to = row.vip, action = "drop" } })
    local packet = flows(row, "udp", 1)[1]
    local way, note = net:way(r, packet, { link = tun, headerless = true })
    t:equal({ way, note.ttl }, { "h2", 64 })
    t:equal(s:stats().total.begun, 1)
    s:detach()
  end
end)

for _, attach in ipairs({ "both directions", "peer and primary" }) do
  test.case("on netkit, " .. attach, function(t)
    t:requires("netkit")
    local net = stage(t, 2, { reply = "server " })
    local nk = cnf.netkit.pair({
      name = "nk0", netns = net.gate, address = { "10.6.0.1/24", "fd06::1/64" },
      peer = { name = "nk0", netns = net.client, address = { "10.6.0.2/24", "fd06::2/64" } },
    })
    local places = attach == "both directions" and { nk } or { { nk, "peer" }, { nk, "primary" } }
    for _, row in ipairs(families) do
      local six = row.family == 6
      net.client:route({ dst = row.vip .. (six and "/128" or "/32"), via = six and "fd06::1" or "10.6.0.1" })
    end
    each(function(row, proto)
      local s = lb.service({ name = "web", vip = row.text, proto = proto, attach = places, backends = backends(row, 2) })
      for _ = 1, 10 do
        t:ok(probe[proto](net.client, row.text, { timeout = 3 }).reply:find("^server "))
      end
      t:equal(s:stats().total.begun, 10)
      s:detach()
    end)
  end)
end

test.case("where the library's programs stand, whichever was made first", function(t)
  local net = lab.new(t)
  local row = families[1]
  local inside, order = net.link.inside, {}
  local makers = {
    function() net:router({ attach = { { inside, "ingress" }, { inside, "egress" } } }) end,
    function() cnf.mirror.to({ from = inside, to = net.link.h1 }) end,
    function() service(net, row, "tcp", {}) end,
    function() cnf.chaos.inject(inside, { direction = "both", loss = 0 }) end,
  }
  for i = #makers, 1, -1 do
    makers[i]()
  end
  local hook = cnf.probe_feature("tcx") and cnf.tcx or cnf.tc
  for _, side in ipairs({ "ingress", "egress" }) do
    order[side] = hooks.names(hook.query(inside, side))
  end
  t:equal(order, {
    ingress = { "chaos_ingress", "mirror_in", "lb_l2", "ingress" },
    egress = { "chaos_egress", "lb_l2", "mirror_out", "egress" },
  })
end)

test.case("two services on one link", function(t)
  local net = lab.new(t)
  local row = families[1]
  local first = service(net, row, "tcp", { backends(row, 3)[1] })
  local second = service(net, row, "udp", { backends(row, 3)[2] })
  t:equal((net:way(nil, flows(row, "tcp", 1)[1])), "h1")
  t:equal((net:way(nil, flows(row, "udp", 1)[1])), "h2")
  t:equal({ first:stats().total.begun, second:stats().total.begun }, { 1, 1 })
end)

test.case("what is refused leaves nothing behind", function(t)
  local net = lab.new(t)
  local row = families[1]
  local here, elsewhere = { net.link.inside }, { net.link.inside, net.c0 }
  local list = backends(row, 2)
  for i, case in ipairs({
    { { vip = "1.2.3.4:80", attach = here }, "name is missing" },
    { { name = "a", attach = here }, "vip is missing" },
    { { name = "a", vip = "1.2.3.4", attach = here }, "has no port" },
    { { name = "a", vip = "1.2.3.4:0", attach = here }, "port 0" },
    { { name = "a", vip = "www:80", attach = here }, "is not an address and a port" },
    { { name = "a", vip = "224.0.0.1:80", attach = here }, "no unicast address" },
    { { name = "a", vip = "[fe80::1]:80", attach = here }, "no unicast address" },
    { { name = "a", vip = row.text }, "attach is missing" },
    { { name = "a", vip = row.text, attach = {} }, "names no link" },
    { { name = "a", vip = row.text, attach = { "inside" } }, "must be a Link" },
    { { name = "a", vip = row.text, attach = { { net.link.inside, "inward" } } }, 'no side "inward"' },
    { { name = "a", vip = row.text, attach = { net.link.inside, { net.link.inside, "egress" } } }, "twice" },
    { { name = "a", vip = row.text, attach = elsewhere }, "EXDEV" },
    { { name = "a", vip = row.text, attach = { { net.link.inside, "primary" } } }, "netkit" },
    { { name = "a", vip = row.text, attach = here, proto = "sctp" }, "proto must be" },
    { { name = "a", vip = row.text, attach = here, idle = "5s" }, "idle is of UDP" },
    { { name = "a", vip = row.text, attach = here, connections = 0 }, "connections must be" },
    { { name = "a", vip = row.text, attach = here, backend = list }, "unknown option" },
    { { name = "a", vip = row.text, attach = here, backends = { list[1], list[1] } }, "named twice" },
    { { name = "a", vip = row.text, attach = here, backends = { { address = "fd00::1" } } }, "different families" },
    { { name = "a", vip = row.text, attach = here, backends = { { adress = "10.0.0.1" } } }, 'unknown option "adress"' },
    { { name = "a", vip = row.text, attach = here, backends = { { address = "10.0.0.1", weight = -1 } } }, "weight must be" },
    { { name = "a", vip = row.text, attach = here, backends = { 7 } }, "must be a backend" },
    { { name = "a", vip = row.text, attach = here, backends = { row.text } }, "is the service itself" },
  }) do
    local problem = t:raises(function()
      lb.service(case[1])
    end)
    t:ok(tostring(problem):find(case[2], 1, true), ("case %d: %s"):format(i, problem))
  end
  local s = service(net, row, "tcp", list, { name = "one" })
  t:raises(function()
    service(net, row, "udp", list, { name = "one" })
  end, "EEXIST")
  for _, case in ipairs({
    { function() s:set_backends() end, "takes an array" },
    { function() s:set_backends({ address = "10.0.0.2" }) end, "takes an array" },
    { function() s:set_backends({ "10.0.0.2:99999" }) end, "is not an address and a port" },
    { function() s:drain("10.0.0.2:80") end, "there is no backend" },
    { function() s:forget() end, "must be a backend" },
    { function() return s.backends end, 'has no field or method "backends"' },
  }) do
    local problem = t:raises(case[1])
    t:ok(tostring(problem):find(case[2], 1, true), tostring(problem))
  end
  t:equal(#s:list(), 2, "what was refused has changed nothing")
  local many = {}
  for i = 1, 4096 do
    many[i] = ("10.%d.%d.1:80"):format(i // 256, i % 256)
  end
  t:raises(function()
    s:set_backends(many)
  end, "E2BIG")
end)

test.case("backends come and go for longer than there are numbers", function(t)
  local net = lab.new(t)
  local row = families[1]
  local s = service(net, row, "tcp", backends(row, 1))
  t:equal((net:way(nil, flows(row, "tcp", 1)[1])), "h1")
  for round = 0, 3 do
    local many = { backends(row, 1)[1] }
    for i = 1, 1500 do
      many[#many + 1] = ("10.%d.%d.%d:80"):format(100 + round, i // 256, i % 256)
    end
    s:set_backends(many)
  end
  s:set_backends({ backends(row, 3)[3] })
  t:equal((net:way(nil, flows(row, "tcp", 1, { flags = ACK })[1])), "h1", "the first connection is where it was")
  t:equal((net:way(nil, flows(row, "tcp", 1, { sport = 99 })[1])), "h3")
  t:equal(s:stats().total.begun, 2)
end)
