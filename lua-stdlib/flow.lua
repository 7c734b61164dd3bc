--- `flow`: accounting by flow. The eBPF half is bpf/flow.bpf.c.

local _, cnf = ...
local bpf, chain, library, program = cnf.bpf, cnf._chain, cnf._library, cnf._program

local flow = {}

local FLAGS = { "FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR" }
local PROTOCOLS = {
  [1] = "icmp",
  [6] = "tcp",
  [17] = "udp",
  [33] = "dccp",
  [47] = "gre",
  [50] = "esp",
  [58] = "icmpv6",
  [132] = "sctp",
  [136] = "udplite",
}

local Flows = library.class("Flows", "flows", { "link", "direction" })
local counted = 0

function Flows:__tostring()
  return ("Flows(%s, %s)"):format(self.link.name, self.direction)
end

--- An address as people write it: IPv4 is kept as ::ffff:a.b.c.d.
local function address(key, text)
  return key.ipv6 == 0 and text:match("^::ffff:(.*)$") or text
end

local function flag_names(bits)
  local names = {}
  for i, name in ipairs(FLAGS) do
    if bits & 1 << (i - 1) ~= 0 then
      names[#names + 1] = name
    end
  end
  return names
end

--- A key of the map, as scripts see it.
local function flow_of(key)
  local has_ports = key.sport ~= 0 or key.dport ~= 0
  return {
    from = address(key, key.from),
    to = address(key, key.to),
    proto = PROTOCOLS[key.proto] or key.proto,
    sport = has_ports and key.sport or nil,
    dport = has_ports and key.dport or nil,
    direction = key.direction == 0 and "ingress" or "egress",
  }
end

--- From the clock of eBPF programs to that of the wall, in seconds since 1970.
local function wall_clock()
  local now, wall = library.clock()
  return function(nanoseconds)
    return wall - (now - nanoseconds) / 1e9
  end
end

local OP = "flow.account"

local function read(options)
  local given = library.read(OP, nil, options, {
    link = "link!",
    direction = { "ingress", "egress", "both" },
    match = "match",
    size = "count",
    sample = "sample",
    on_sample = "function",
  })
  if (given.sample == nil) ~= (given.on_sample == nil) then
    cnf.error({
      op = OP,
      subject = given.link.name,
      code = "EINVAL",
      message = "sample says how many packets on_sample is called for: neither does without the other",
    })
  end
  given.direction = given.direction or "both"
  return given
end

local function sample_of(record, at)
  local sample = flow_of(record.flow)
  sample.time = at(record.time)
  sample.bytes, sample.packets, sample.ttl = record.bytes, record.packets, record.ttl
  sample.flags = sample.proto == "tcp" and flag_names(record.flags) or nil
  return sample
end

function flow.account(options)
  local given = read(options)
  local link, direction = given.link, given.direction
  local inside = { attachments = {} }
  local self = setmetatable({ link = link, direction = direction, _ = inside }, Flows)
  local ways = direction == "both" and { "ingress", "egress" } or { direction }
  local ok, problem = pcall(program.as, OP, link.name, function()
    local sample = math.floor((given.sample or 0) * 4294967296 + 0.5)
    inside.object = bpf.builtin("flow", {
      name = program.name_of("flow", link),
      fresh = { "settings", "samples" },
      said = library.words(given.match, sample),
      globals = { headerless = program.headerless(link) and 1 or 0 },
      max_entries = { flows = given.size or 65536 },
    })
    inside.object.maps.settings:set(0, { match = given.match, sample = sample })
    if given.on_sample then
      local at = wall_clock()
      inside.samples = inside.object.maps.samples:on_record(function(record)
        given.on_sample(sample_of(record, at))
      end)
    end
    for i, way in ipairs(ways) do
      local attached = inside.object.programs["flow_" .. way]
      inside.attachments[i] = chain.attach(link, way, attached, ("flow-%d"):format(counted))
    end
  end)
  if not ok then
    self:detach()
    error(problem, 0)
  end
  counted = counted + 1
  return self
end

function Flows:list(options)
  local op = "flows:list"
  local given = library.read(op, self.link.name, options, {
    by = { "packets", "bytes", "first", "last" },
    most = "count",
  })
  local at, list = wall_clock(), {}
  for key, value in self._.object.maps.flows:pairs() do
    local one = flow_of(key)
    one.packets, one.bytes = value.packets, value.bytes
    one.first, one.last = at(value.first), at(value.last)
    one.flags = one.proto == "tcp" and flag_names(value.flags) or nil
    list[#list + 1] = one
  end
  local by = given.by or "bytes"
  table.sort(list, function(a, b)
    return a[by] > b[by]
  end)
  for i = #list, (given.most or #list) + 1, -1 do
    list[i] = nil
  end
  return list
end

function Flows:stats()
  local totals = self._.object.maps.totals:get(0):sum()
  return {
    packets = totals.counted.packets,
    bytes = totals.counted.bytes,
    sampled = totals.sampled,
    missed = totals.missed,
  }
end

function Flows:clear()
  self._.object.maps.flows:clear()
end

function Flows:detach()
  local inside = self._
  for _, attachment in ipairs(inside.attachments) do
    attachment:detach()
  end
  inside.attachments = {}
  if inside.samples then
    inside.samples:close()
    inside.samples = nil
  end
end

return flow
