--- The policy router against a model of it: random sets of policies, random packets; the model, `r:explain` and the eBPF
--- programs must tell the same way of each. `CNF_SEED` repeats a run, `CNF_ROUNDS` lengthens it.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local lab = require("lab")
local test = cnf.test

local SEED = tonumber(os.getenv("CNF_SEED")) or 20240607
local ROUNDS = tonumber(os.getenv("CNF_ROUNDS")) or (os.getenv("CNF_SLOW") and 3 or 24)
local PACKETS = 60
local WAYS = 4

-- The model: addresses are arrays of bits' words, prefixes are compared bit by bit. Nothing of the router here. --------

--- Whether the first `length` bits are equal.
local function covers(prefix, address)
  if #prefix.bytes ~= #address then
    return false
  end
  local whole, rest = prefix.length // 8, prefix.length % 8
  if prefix.bytes:sub(1, whole) ~= address:sub(1, whole) then
    return false
  end
  if rest == 0 then
    return true
  end
  local shift = 8 - rest
  return prefix.bytes:byte(whole + 1) >> shift == address:byte(whole + 1) >> shift
end

local HAS_PORTS = { tcp = true, udp = true, sctp = true }

local function matches(policy, packet)
  local from, to = policy.model.from, policy.model.to
  if policy.model.family and policy.model.family ~= packet.family then
    return false
  end
  return not (
    (from and not covers(from, packet.from_bytes))
    or (to and not covers(to, packet.to_bytes))
    or (policy.proto and policy.proto ~= packet.proto)
    or (policy.sport and (not HAS_PORTS[packet.proto] or policy.sport ~= packet.sport))
    or (policy.dport and (not HAS_PORTS[packet.proto] or policy.dport ~= packet.dport))
    or (policy.mark and policy.mark ~= packet.mark)
    or policy.vlan ~= packet.vlan
  )
end

local FIELDS = { "proto", "sport", "dport", "mark", "vlan" }

local function fields(policy)
  local count = 0
  for _, word in ipairs(FIELDS) do
    count = count + (policy[word] and 1 or 0)
  end
  return count
end

local function stage(policy)
  if fields(policy) > 0 or (policy.from and policy.to) then
    return 1
  end
  return policy.from and 2 or policy.to and 3 or 4
end

local function length(prefix)
  return prefix and prefix.length or 0
end

--- Whether `a` goes before `b`, both matching; `a` stands earlier in the list.
local function stays_ahead(a, b)
  if stage(a) ~= stage(b) then
    return stage(a) < stage(b)
  elseif stage(a) > 1 then
    local side = stage(a) == 2 and "from" or "to"
    return length(a.model[side]) >= length(b.model[side])
  end
  local left = { -(a.priority or 1000), length(a.model.from), length(a.model.to), fields(a) }
  local right = { -(b.priority or 1000), length(b.model.from), length(b.model.to), fields(b) }
  for i = 1, 4 do
    if left[i] ~= right[i] then
      return left[i] > right[i]
    end
  end
  return true
end

local function decide(set, packet)
  local best
  for i, policy in ipairs(set) do
    if matches(policy, packet) and not (best and stays_ahead(set[best], policy)) then
      best = i
    end
  end
  return best
end

-- Making things up -------------------------------------------------------------------------------------------------

local function pick(list)
  return list[math.random(#list)]
end

local function text_of(bytes)
  if #bytes == 4 then
    return ("%d.%d.%d.%d"):format(bytes:byte(1, 4))
  end
  return ("%x:%x:%x:%x:%x:%x:%x:%x"):format(string.unpack(">I2I2I2I2I2I2I2I2", bytes))
end

--- Addresses cluster around a few, so that prefixes of any length overlap.
local function address(family, anchors)
  local bytes = { pick(anchors[family]):byte(1, -1) }
  -- The first byte stays: it keeps addresses ordinary.
  if math.random(4) > 1 then
    local bit = math.random(8, #bytes * 8 - 1)
    bytes[bit // 8 + 1] = bytes[bit // 8 + 1] ~ (0x80 >> bit % 8)
  end
  if math.random(6) == 1 then
    for i = math.random(2, #bytes), #bytes do
      bytes[i] = math.random(0, 255)
    end
  end
  return string.char(table.unpack(bytes))
end

local function anchors()
  local made = { [4] = {}, [6] = {} }
  for i = 1, 4 do
    made[4][i] = string.pack(">I4", (pick({ 20, 100, 150, 200 }) << 24) | math.random(0, 0xffffff))
    made[6][i] = string.pack(">I2I2I4I8", 0x2001, 0xdb8, math.random(0, 0xffffffff), math.random(0))
  end
  return made
end

--- The address without the bits behind its prefix.
local function network(address, length)
  local bytes, rest = { address:byte(1, -1) }, length
  for i = 1, #bytes do
    local keep = math.max(0, math.min(8, rest))
    bytes[i], rest = bytes[i] & (0xff << (8 - keep)) & 0xff, rest - keep
  end
  return string.char(table.unpack(bytes))
end

local function prefix(family, from_anchors)
  local bytes = address(family, from_anchors)
  local bits = #bytes * 8
  local lengths = { math.random(0, bits), math.random(bits // 2, bits), pick({ 8, 16, 24, 32, bits }), bits }
  local length = pick(lengths)
  return { bytes = network(bytes, length), length = length }
end

local function written(made)
  return made and ("%s/%d"):format(text_of(made.bytes), made.length)
end

--- What tells equal matches.
local function key(policy)
  local parts = { policy.from or "-", policy.to or "-" }
  for _, word in ipairs(FIELDS) do
    parts[#parts + 1] = tostring(policy[word])
  end
  return table.concat(parts, " ")
end

local PORTS = { 1, 53, 80, 443, 8080 }
local MARKS = { 0, 1, 7, 0x80000000 }
local VLANS = { 1, 7 }

local function random_policy(net, family, around)
  local policy = { model = {} }
  local kind = math.random(10)
  if kind <= 4 or kind >= 8 then
    policy.model.from = math.random(5) > 1 and prefix(family, around) or nil
  end
  if kind > 4 and kind < 8 or kind == 9 or not policy.model.from then
    policy.model.to = prefix(family, around)
  end
  if kind >= 8 then
    policy.proto = math.random(2) == 1 and pick({ "tcp", "udp", "sctp", family == 4 and "icmp" or "icmpv6" }) or nil
    if not policy.proto or HAS_PORTS[policy.proto] then
      policy.sport = math.random(4) == 1 and pick(PORTS) or nil
      policy.dport = math.random(2) == 1 and pick(PORTS) or nil
    end
    policy.mark = math.random(5) == 1 and pick(MARKS) or nil
    policy.vlan = math.random(6) == 1 and pick(VLANS) or nil
    policy.priority = math.random(2) == 1 and math.random(0, 4) * 500 or nil
  end
  policy.from, policy.to = written(policy.model.from), written(policy.model.to)
  local action = math.random(8)
  if action == 1 then
    policy.action, policy.way = "drop", "none"
  elseif action == 2 then
    policy.action, policy.way = "pass", "h" .. WAYS
  else
    local i = math.random(WAYS - 1)
    policy.model.family = family
    local hop = net:hop(i, family)
    policy.via, policy.dev, policy.way = hop.via, hop.dev, "h" .. i
  end
  return policy
end

local function random_set(net, around)
  local set, seen = {}, {}
  for _ = 1, math.random(20, 200) do
    local policy = random_policy(net, pick({ 4, 6 }), around)
    if not seen[key(policy)] then
      seen[key(policy)] = true
      set[#set + 1] = policy
    end
  end
  return set
end

local function random_packet(around)
  local family = pick({ 4, 6 })
  local packet = {
    family = family,
    from_bytes = address(family, around),
    to_bytes = address(family, around),
    proto = pick({ "tcp", "udp", "udp", "sctp", family == 4 and "icmp" or "icmpv6", "gre" }),
    sport = pick(PORTS),
    dport = pick(PORTS),
    vlan = math.random(8) == 1 and pick(VLANS) or nil,
    size = 40,
  }
  packet.from, packet.to = text_of(packet.from_bytes), text_of(packet.to_bytes)
  return packet
end

--- For the router: without what is the model's.
local function plain(set)
  local out = {}
  for i, policy in ipairs(set) do
    local copy = {}
    for word, value in pairs(policy) do
      copy[word] = value
    end
    copy.model, copy.way = nil, nil
    out[i] = copy
  end
  return out
end

local function told(packet)
  local words = {}
  for _, word in ipairs({ "from", "to", "proto", "sport", "dport", "mark", "vlan" }) do
    if packet[word] then
      words[#words + 1] = word .. " " .. packet[word]
    end
  end
  return table.concat(words, " ")
end

local function described(policy)
  if not policy then
    return "no policy"
  end
  return cnf._show.value(plain({ policy })[1], { depth = 2 })
end

-- Packets leave the box itself by the kernel's way, which is where the router looks at them: there they can have a mark.
for _, hook in ipairs({ "ingress", "egress" }) do
  test.case("random sets and packets at " .. hook, function(t)
    math.randomseed(SEED)
    print("CNF_SEED=" .. SEED)
    local net = lab.new(t, { ways = WAYS })
    local out = hook == "egress" and net.link["h" .. WAYS] or nil
    local r = net:router({ attach = { { out or net.link.inside, hook } } })
    for round = 1, ROUNDS do
      local around = anchors()
      local set = random_set(net, around)
      local mark = out and pick(MARKS) or 0
      r:set(plain(set))
      t:equal(#r:list(), #set, "none are equal")
      local packets, expected, policies = {}, {}, {}
      local lost = 0
      for i = 1, PACKETS do
        local packet = random_packet(around)
        packet.mark = mark
        local policy = decide(set, packet)
        packets[i], policies[i] = packet, policy or false
        expected[i] = policy and set[policy].way or "h" .. WAYS
        -- The kernel has no link for tagged packets that are left to it.
        if packet.vlan and expected[i] == "h" .. WAYS and not out then
          expected[i], lost = "none", lost + 1
        end
      end
      local before = r:stats()
      local ways = net:fates(r, packets, { link = out, mark = out and mark, lost = lost })
      local taken = {}
      for i, packet in ipairs(packets) do
        local place = ("round %d, packet %d, seed %d: %s"):format(round, i, SEED, told(packet))
        local policy = policies[i] and set[policies[i]]
        local said = r:explain({
          from = packet.from, to = packet.to, proto = packet.proto, sport = packet.sport, dport = packet.dport,
          mark = mark, vlan = packet.vlan,
        })
        if policy then
          t:ok(said.policy, place .. "\nexplain finds none, but there is " .. described(policy))
          for _, word in ipairs({ "proto", "sport", "dport", "mark", "vlan" }) do
            t:equal(said.policy[word], policy[word], place .. "\nexplain: " .. described(said.policy) .. "\nmodel: " .. described(policy))
          end
          t:equal(said.hop and said.hop.dev, policy.dev, place)
          taken[policies[i]] = (taken[policies[i]] or 0) + 1
        else
          t:equal(said.policy, nil, place)
        end
        t:equal(ways[i], expected[i], place .. "\n" .. described(policy))
      end
      -- Each policy has counted its own.
      local after = r:stats()
      for i = 1, #set do
        t:equal(after[i].packets - before[i].packets, taken[i] or 0, ("round %d: %s"):format(round, described(set[i])))
      end
    end
  end)
end
