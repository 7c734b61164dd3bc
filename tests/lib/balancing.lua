--- What the tests of the load balancer share: services of both families and protocols, and packets to them.

local lb = require("cnf").lb

local SYN = 0x02

local balancing = {}

balancing.families = {
  { family = 4, from = "10.0.0.2", vip = "192.0.2.1", text = "192.0.2.1:80", backend = "10.1.%d.2" },
  { family = 6, from = "fd00::2", vip = "2001:db8::1", text = "[2001:db8::1]:80", backend = "fd01:%d::2" },
}
balancing.protocols = { "tcp", "udp" }

--- The first `count` ways of the lab as backends; `weights` in their order.
function balancing.backends(row, count, weights)
  local list = {}
  for i = 1, count do
    list[i] = { address = row.backend:format(i), port = 8080, weight = weights and weights[i] }
  end
  return list
end

local number = 0

--- A service on the lab's inside.
function balancing.service(net, row, proto, list, options)
  number = number + 1
  local given = {
    name = "service" .. number, vip = row.text, proto = proto, attach = { net.link.inside }, backends = list,
  }
  for key, value in pairs(options or {}) do
    given[key] = value
  end
  return lb.service(given)
end

--- One packet of each of `count` flows to the service; `fields` are those of each packet.
function balancing.flows(row, proto, count, fields)
  local packets = {}
  for i = 1, count do
    packets[i] = { from = row.from, to = row.vip, proto = proto, sport = 1024 + i, dport = 80, size = 8, flags = SYN }
    for key, value in pairs(fields or {}) do
      packets[i][key] = value
    end
  end
  return packets
end

--- Runs `fn(row, proto)` for both families and protocols.
function balancing.each(fn)
  for _, row in ipairs(balancing.families) do
    for _, proto in ipairs(balancing.protocols) do
      fn(row, proto)
    end
  end
end

return balancing
