--- The load balancer: which backend a connection comes to, that it stays there, and what its packets look like.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local balancing = require("balancing")
local lab = require("lab")
local test = cnf.test

local slow = os.getenv("CNF_SLOW")
local FLOWS = slow and 300 or 2000
local SYN, ACK, FIN, RST = 0x02, 0x10, 0x01, 0x04

local families = balancing.families
local backends, service, flows = balancing.backends, balancing.service, balancing.flows
local held, each = lab.held, balancing.each

-- Whom connections come to -------------------------------------------------------------------------------------------

test.case("new connections are shared by weight", function(t)
  local net = lab.new(t, { ways = 4 })
  each(function(row, proto)
    local s = service(net, row, proto, backends(row, 4, { 1, 2, 1, 0 }))
    local count = held(net:fates(nil, flows(row, proto, FLOWS)))
    -- A binomial distribution: five standard deviations are at most 112 of 2000.
    for way, share in pairs({ h1 = 0.25, h2 = 0.5, h3 = 0.25 }) do
      local spread = 5 * math.sqrt(FLOWS * share * (1 - share))
      t:ok(math.abs(count[way] - FLOWS * share) < spread, ("%s got %d of %d"):format(way, count[way], FLOWS))
    end
    t:equal(count.h4, nil, "a weight of 0 gets nothing")
    local stats = s:stats()
    t:equal({ stats[1].begun, stats[2].begun, stats[3].begun, stats[4].begun }, { count.h1, count.h2, count.h3, 0 })
    t:equal({ stats.total.begun, stats.total.unserved.packets }, { FLOWS, 0 })
    t:equal({ stats[3].state, stats[4].state }, { "serving", "draining" })
    s:detach()
  end)
end)

test.case("a backend that comes or goes moves only its share of new connections", function(t)
  local net = lab.new(t, { ways = 4 })
  each(function(row, proto)
    local s = service(net, row, proto, backends(row, 3))
    --- Flows that nobody has seen, the same in each round: only their hash says where they go.
    local function ways()
      local list = s:list()
      s:detach()
      local fresh = service(net, row, proto, list, { name = "fresh" })
      local found = net:fates(nil, flows(row, proto, FLOWS))
      fresh:detach()
      s = service(net, row, proto, fresh:list())
      return found
    end
    local three = ways()
    s:set_backends(backends(row, 4))
    local four = ways()
    local moved, elsewhere = 0, 0
    for i, way in ipairs(three) do
      if four[i] ~= way then
        moved = moved + 1
        elsewhere = elsewhere + (four[i] ~= "h4" and 1 or 0)
      end
    end
    t:ok(math.abs(moved / FLOWS - 0.25) < 0.08, ("%d of %d moved to the new one"):format(moved, FLOWS))
    t:ok(elsewhere / FLOWS < 0.02, ("%d of %d moved between old ones"):format(elsewhere, FLOWS))
    local list = backends(row, 4)
    table.remove(list, 2)
    s:set_backends(list)
    local without = ways()
    moved, elsewhere = 0, 0
    for i, way in ipairs(four) do
      if without[i] ~= way then
        moved = moved + (way == "h2" and 1 or 0)
        elsewhere = elsewhere + (way ~= "h2" and 1 or 0)
      end
    end
    t:equal(moved, held(four).h2, "all of the one that is gone")
    t:ok(elsewhere / FLOWS < 0.02, ("%d of %d moved between others"):format(elsewhere, FLOWS))
    s:detach()
  end)
end)

test.case("two services of one list agree, whatever its order", function(t)
  local net = lab.new(t)
  local row = families[1]
  local list = backends(row, 3)
  local s = service(net, row, "tcp", list)
  local first = net:fates(nil, flows(row, "tcp", 200))
  s:detach()
  service(net, row, "tcp", { list[3], list[1], list[2] })
  t:equal((net:fates(nil, flows(row, "tcp", 200))), first)
end)

-- That they stay -----------------------------------------------------------------------------------------------------

test.case("no established connection moves, whatever happens to the backends", function(t)
  local net = lab.new(t, { ways = 4 })
  each(function(row, proto)
    local s = service(net, row, proto, backends(row, 3))
    local count = 300
    local before = net:fates(nil, flows(row, proto, count))
    local established = flows(row, proto, count, { flags = ACK })
    t:equal((net:fates(nil, established)), before, "the next packets")
    local changes = {
      { "one more", function() s:set_backends(backends(row, 4)) end },
      { "one less", function() s:set_backends({ backends(row, 4)[1], backends(row, 4)[4] }) end },
      { "other weights", function() s:set_backends(backends(row, 4, { 100, 1, 1, 1 })) end },
      { "drained", function() s:drain(backends(row, 4)[1]) end },
      { "none at all", function() s:set_backends({}) end },
    }
    for _, change in ipairs(changes) do
      change[2]()
      t:equal((net:fates(nil, established)), before, change[1])
    end
    t:equal(s:stats().total.begun, count)
    t:equal(s:connections(), count)
    s:detach()
  end)
end)

test.case("a backend that drains gets no new connections", function(t)
  local net = lab.new(t)
  each(function(row, proto)
    local s = service(net, row, proto, backends(row, 3))
    local before = net:fates(nil, flows(row, proto, 100))
    s:drain(backends(row, 3)[2])
    t:equal(s:list()[2].weight, 0)
    local fresh = held(net:fates(nil, flows(row, proto, 300, { from = row.from:gsub("2$", "3") })))
    t:ok(fresh.h1 and fresh.h3 and not fresh.h2, "new ones go to the others")
    t:equal(s:connections(backends(row, 3)[2]), held(before).h2)
    t:equal((net:fates(nil, flows(row, proto, 100, { flags = ACK }))), before)
    s:set_backends(backends(row, 3))
    fresh = held(net:fates(nil, flows(row, proto, 300, { from = row.from:gsub("2$", "4") })))
    t:ok(fresh.h2, "it is back")
    s:detach()
  end)
end)

test.case("when a TCP connection has ended, the next of the same ports is a new one", function(t)
  local net = lab.new(t)
  for _, row in ipairs(families) do
    --- What ends it, whether the other side has to answer.
    for last, both in pairs({ [FIN | ACK] = true, [RST] = false }) do
      local s = service(net, row, "tcp", { backends(row, 3)[1] })
      local function way(flags)
        return (net:way(nil, flows(row, "tcp", 1, { flags = flags })[1]))
      end
      t:equal(way(SYN), "h1")
      s:set_backends({ backends(row, 3)[2] })
      t:equal(way(ACK), "h1", "it goes on")
      t:equal(way(last), "h1", "its end comes to the same")
      t:equal(way(ACK), "h1", "and what follows that")
      if both then
        t:equal(s:connections(), 1, "half of it is open")
        net:inject({ {
          from = row.backend:format(1), to = row.from, proto = "tcp", sport = 8080, dport = 1025, flags = FIN | ACK,
        } }, { link = net.far.h1, to_mac = net.link.h1:info().mac })
        t:eventually(function()
          return s:connections() == 0
        end)
      end
      t:equal(s:connections(), 0)
      t:equal(way(SYN), "h2", "a SYN begins another")
      t:equal(way(ACK), "h2")
      s:detach()
    end
    local s = service(net, row, "tcp", { backends(row, 3)[1] })
    local syn = flows(row, "tcp", 1)[1]
    t:equal((net:way(nil, syn)), "h1")
    t:equal((net:way(nil, syn)), "h1", "the same SYN once more")
    s:set_backends({ backends(row, 3)[2] })
    t:equal((net:way(nil, syn)), "h2", "its backend is gone: it is not established")
    s:detach()
  end
end)

test.case("a UDP flow that was idle is new; a backend that is dead is forgotten at once", function(t)
  local net = lab.new(t)
  for _, row in ipairs(families) do
    local s = service(net, row, "udp", { backends(row, 3)[1] }, { idle = slow and "20s" or "1s" })
    local packet = flows(row, "udp", 1)[1]
    t:equal((net:way(nil, packet)), "h1")
    s:set_backends({ backends(row, 3)[2] })
    t:equal((net:way(nil, packet)), "h1")
    t:equal(s:connections(), 1)
    t:eventually(function()
      return s:connections() == 0
    end, { within = slow and 60 or 5 })
    t:equal((net:way(nil, packet)), "h2")
    s:detach()
    s = service(net, row, "udp", backends(row, 2))
    local ways = net:fates(nil, flows(row, "udp", 100))
    s:set_backends({ backends(row, 2)[1] })
    t:equal(s:forget(backends(row, 2)[2]), held(ways).h2)
    t:equal(held(net:fates(nil, flows(row, "udp", 100))), { h1 = 100 })
    s:detach()
  end
end)

test.case("a packet of a connection that nobody knows comes to where its hash says", function(t)
  local net = lab.new(t)
  local row = families[1]
  local s = service(net, row, "tcp", backends(row, 3))
  local before = net:fates(nil, flows(row, "tcp", 100))
  s:detach()
  service(net, row, "tcp", backends(row, 3))
  t:equal((net:fates(nil, flows(row, "tcp", 100, { flags = ACK }))), before, "as after a restart")
end)

-- What is left alone -------------------------------------------------------------------------------------------------

test.case("what is not the service's passes as it is", function(t)
  local net = lab.new(t)
  for _, row in ipairs(families) do
    local s = service(net, row, "tcp", { backends(row, 3)[1] })
    for _, fields in ipairs({
      { dport = 81 }, { proto = "udp" }, { to = row.backend:format(9) }, { proto = row.family == 4 and "icmp" or "icmpv6" },
      { proto = "sctp" },
    }) do
      local way, note = net:way(nil, flows(row, "tcp", 1, fields)[1])
      t:equal({ way, note.ttl }, { "h3", 63 })
    end
    s:set_backends({})
    t:equal((net:way(nil, flows(row, "tcp", 1)[1])), "h3", "without backends the kernel decides")
    t:equal({ s:stats().total.begun, s:stats().total.unserved.packets }, { 0, 1 })
    s:detach()
  end
end)
