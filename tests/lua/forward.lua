--- Forwarding at XDP: what goes by it, what is left to the network stack, and that it all arrives.
local cnf = require("cnf")
local filter, forward, link, probe, test, xdp =
  cnf.filter, cnf.forward, cnf.link, cnf.probe, cnf.test, cnf.xdp

--- client 10.1.0.1 --- left [router] right --- 10.2.0.2 server
local function network(t)
  local client, router, server = t:netns("client"), t:netns("router"), t:netns("server")
  local near, left = link.veth({
    name = "eth0",
    netns = client,
    address = { "10.1.0.1/24", "fd01::1/64" },
    peer = { name = "left", netns = router, address = { "10.1.0.254/24", "fd01::fe/64" } },
  })
  local far, right = link.veth({
    name = "eth0",
    netns = server,
    address = { "10.2.0.2/24", "fd02::2/64" },
    peer = { name = "right", netns = router, address = { "10.2.0.254/24", "fd02::fe/64" } },
  })
  client:route({ dst = "default", via = "10.1.0.254" })
  client:route({ dst = "default", via = "fd01::fe" })
  server:route({ dst = "default", via = "10.2.0.254" })
  server:route({ dst = "default", via = "fd02::fe" })
  router:sysctl("net.ipv4.ip_forward", 1)
  router:sysctl("net.ipv6.conf.all.forwarding", 1)
  return {
    client = client,
    server = server,
    router = router,
    left = left,
    right = right,
    near = near,
    far = far,
  }
end

local function ping(n, address, options)
  options = options or {}
  options.count, options.interval = options.count or 5, 0.005
  options.timeout = options.timeout or 0.3
  return probe.ping(n.client, address, options).received
end

--- Resolves neighbours: the first frames are the stack's.
local function warm(t, n)
  t:equal(ping(n, "10.2.0.2"), 5)
  t:equal(ping(n, "fd02::2"), 5)
end

--- By how much the counters of `f` grow while `fn` runs.
local function grown(f, fn)
  local before = f:stats()
  fn()
  local after, by = f:stats(), {}
  for fate, counter in pairs(after) do
    by[fate] = counter.packets - before[fate].packets
  end
  return by
end

for _, mode in ipairs({ "native", "generic" }) do
  test.case("both ways, both families: " .. mode, function(t)
    local n = network(t)
    warm(t, n)
    local f = forward.xdp({ links = { n.left, n.right }, mode = mode })
    t:equal(f:info(), {
      { link = "left", mode = mode, stage = 15 },
      { link = "right", mode = mode, stage = 15 },
    })
    for _, address in ipairs({ "10.2.0.2", "fd02::2" }) do
      local by = grown(f, function()
        t:equal(ping(n, address, { count = 10 }), 10)
      end)
      t:equal(by.forwarded, 20, address)
    end
    -- The box itself is the stack's.
    local by = grown(f, function()
      t:equal(ping(n, "10.1.0.254"), 5)
    end)
    t:equal(by.forwarded, 0)
    t:ok(by.stack >= 5)
    f:detach()
    t:equal(ping(n, "10.2.0.2"), 5)
    t:equal(xdp.query(n.left).programs, {})
    t:equal(xdp.query(n.near).programs, {})
    t:equal(f:stats().forwarded.packets, 40)
  end)
end

test.case("TTL falls by one and its checksum stays right", function(t)
  local n = network(t)
  warm(t, n)
  local f = forward.xdp({ links = { n.left, n.right } })
  local by = grown(f, function()
    local out = n.client:exec({ "ping", "-c1", "-W1", "-t2", "10.2.0.2" })
    t:ok(out.stdout:find("ttl=63", 1, true), out.stdout)
  end)
  t:equal(by.forwarded, 2)
  -- With one hop to live the stack says that it is over.
  by = grown(f, function()
    local out = n.client:exec({ "ping", "-c1", "-W1", "-t1", "10.2.0.2" }, { check = false })
    t:ok(out.stdout:find("Time to live exceeded", 1, true), out.stdout)
  end)
  t:equal(by.expired, 1)
end)

test.case("TCP and UDP arrive whole", function(t)
  local n = network(t)
  warm(t, n)
  local f = forward.xdp({ links = { n.left, n.right } })
  t:equal(f:info()[1].mode, "generic", "a veth has checksums that nobody finished")
  local text = ("0123456789abcdef"):rep(16384)
  probe.serve(n.server, { tcp = 80 })
  probe.serve(n.server, { udp = 53 })
  for _, address in ipairs({ "10.2.0.2", "[fd02::2]" }) do
    t:equal(probe.tcp(n.client, address .. ":80", { send = text }).reply, text)
    t:equal(probe.udp(n.client, address .. ":53", { send = "question" }).reply, "question")
  end
  t:ok(f:stats().forwarded.packets > 20)
end)

test.case("what is too big is answered", function(t)
  local n = network(t)
  warm(t, n)
  n.right:set({ mtu = 1300 })
  n.far:set({ mtu = 1300 })
  local f = forward.xdp({ links = { n.left, n.right } })
  local by = grown(f, function()
    t:equal(ping(n, "10.2.0.2", { size = 1400, df = true, count = 2 }), 0)
  end)
  t:ok(by.too_big >= 1)
  local out = n.client:exec("ip route get 10.2.0.2")
  t:ok(out.stdout:find("mtu 1300", 1, true), out.stdout)
end)

test.case("an unknown neighbour is resolved by the stack", function(t)
  local n = network(t)
  local f = forward.xdp({ links = { n.left, n.right } })
  t:equal(ping(n, "10.2.0.2"), 5)
  local stats = f:stats()
  t:ok(stats.no_neighbour.packets >= 1)
  t:ok(stats.forwarded.packets >= 5)
end)

test.case("out by a link that does not take part: the stack's", function(t)
  local n = network(t)
  warm(t, n)
  local f = forward.xdp({ links = { n.left } })
  local by = grown(f, function()
    t:equal(ping(n, "10.2.0.2"), 5)
  end)
  t:equal(by.forwarded, 0)
  t:equal(by.no_port, 5)
end)

test.case("frames for another address are not forwarded", function(t)
  local n = network(t)
  warm(t, n)
  local f = forward.xdp({ links = { n.left, n.right } })
  n.client:exec("ip neigh replace 10.1.0.254 lladdr 02:00:00:00:00:77 dev eth0")
  local by = grown(f, function()
    t:equal(ping(n, "10.2.0.2", { timeout = 0.1 }), 0)
  end)
  t:equal(by.forwarded, 0)
end)

test.case("a filter and forwarding share a link", function(t)
  local n = network(t)
  n.near:add_address("10.1.0.7/24")
  warm(t, n)
  local f = forward.xdp({ links = { n.left, n.right }, mode = "native" })
  local filtered = filter.xdp({ link = n.left, deny = "10.1.0.7" })
  t:equal(#xdp.query(n.left).programs, 1)
  local by = grown(f, function()
    t:equal(ping(n, "10.2.0.2"), 5)
    t:equal(ping(n, "10.2.0.2", { source = "10.1.0.7", timeout = 0.1 }), 0)
  end)
  t:equal(by.forwarded, 10)
  t:equal(filtered:stats().denied.packets, 5)
  f:detach()
  t:equal(ping(n, "10.2.0.2"), 5)
  t:equal(ping(n, "10.2.0.2", { source = "10.1.0.7", timeout = 0.1 }), 0)
  -- The other end of the pair can be filtered too, its hook being held for forwarding or not.
  filter.xdp({ link = n.near, deny = "10.2.0.2" })
  t:equal(ping(n, "10.2.0.2", { timeout = 0.1 }), 0)
end)

test.case("what is refused", function(t)
  local n = network(t)
  for _, row in ipairs({
    { {}, "links is missing" },
    { { links = {} }, "one or more" },
    { { links = { "left" } }, "must be a Link" },
    { { links = { n.left, n.near } }, "EXDEV" },
    { { links = { n.left }, mod = "native" }, 'unknown option "mod"' },
  }) do
    t:raises(function()
      forward.xdp(row[1])
    end, row[2])
  end
  forward.xdp({ links = { n.left } })
  local busy = t:raises(function()
    forward.xdp({ links = { n.right, n.left } })
  end, "EBUSY")
  t:equal(busy.op, "forward.xdp")
  t:equal(xdp.query(n.right).programs, {}, "nothing stays behind")
end)
