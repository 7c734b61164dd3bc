--- `filter`: frames denied, allowed or limited by their source, at XDP. The eBPF half is bpf/filter.bpf.c.

local _, cnf = ...
local bpf, library, program, stages = cnf.bpf, cnf._library, cnf._program, cnf._stages

local filter = {}

-- enum verdict, enum limit and enum fate of filter.bpf.c.
local DENY, ALLOW = 1, 2
local LIMIT_ALL, LIMIT_SOURCE = 1, 2
local FATES = { "passed", "allowed", "denied", "limited", "other" }

-- BUCKET_SHIFT of bucket.h.
local BUCKET_SHIFT = 16

-- Room for prefixes of each family.
local LEAST_SIZE = 65536

local Filter = library.class("Filter", "filter", { "link" })

function Filter:__tostring()
  return ("Filter(%s)"):format(self.link.name)
end

local function size_of(given, denied, allowed)
  if given.size then
    return given.size
  end
  local count = math.max(denied.count4 + allowed.count4, denied.count6 + allowed.count6)
  return math.max(LEAST_SIZE, 2 * count)
end

--- The global variables that say the rate.
local function rate_globals(rate)
  if not rate then
    return {}
  end
  local cost = (1000000000 << BUCKET_SHIFT) // rate.pps
  local burst = rate.burst or math.max(5, rate.pps // 10)
  return {
    limit = rate.per == "source" and LIMIT_SOURCE or LIMIT_ALL,
    rate = { cost = cost, burst = burst * cost >> BUCKET_SHIFT },
  }
end

local function descending(set, room)
  local list = {}
  for length in pairs(set) do
    list[#list + 1] = length
  end
  table.sort(list, function(a, b)
    return a > b
  end)
  local count = #list
  for i = count + 1, room do
    list[i] = 0
  end
  return list, count
end

--- The first `count` of them as a set.
local function set_of(list, count)
  local set = {}
  for i = 1, count do
    set[list[i]] = true
  end
  return set
end

--- Lets packets see lengths that are in use from now on. None is taken away: one that nothing has costs a lookup, no more.
local function publish(inside, more4, more6)
  local maps = inside.object.maps
  local live = maps.live:get(0)
  local now = maps.lengths:get(live)
  local lengths4, lengths6 = set_of(now.length4, now.count4), set_of(now.length6, now.count6)
  local added = false
  for set, more in pairs({ [lengths4] = more4, [lengths6] = more6 }) do
    for _, length in ipairs(more) do
      added = added or not set[length]
      set[length] = true
    end
  end
  if not added then
    return
  end
  local length4, count4 = descending(lengths4, 33)
  local length6, count6 = descending(lengths6, 129)
  -- Once in a load: what packets read is left as it is until the commit.
  local waits = library.loading() and inside.published
  inside.published = library.loading()
  local other = waits and live or 1 - live
  maps.lengths:set(other, { count4 = count4, count6 = count6, length4 = length4, length6 = length6 })
  -- Now, or at the commit: after what it names.
  maps.live:set(0, other)
end

--- Writes verdicts, then the lengths they need.
local function store(self, op, networks, verdict)
  local inside, value = self._, string.pack("=I4", verdict)
  local maps = inside.object.maps
  local ok, problem = pcall(program.as, op, self.link.name, function()
    if networks.count4 > 0 then
      maps.prefixes4:set_many({ networks.keys4, value:rep(networks.count4) })
    end
    if networks.count6 > 0 then
      maps.prefixes6:set_many({ networks.keys6, value:rep(networks.count6) })
    end
  end)
  publish(inside, networks.lengths4, networks.lengths6)
  if not ok and problem.code == "E2BIG" then
    cnf.error({
      op = op,
      subject = self.link.name,
      code = "E2BIG",
      message = ("there is room for %d networks of a family"):format(inside.size),
      hint = "make it with more: filter.xdp{size = ...}",
    })
  elseif not ok then
    error(problem, 0)
  end
end

local OP = "filter.xdp"

local function read(options)
  local given = library.read(OP, nil, options, {
    link = "link!",
    deny = "any",
    allow = "any",
    default = { "allow", "deny" },
    rate = "table",
    mode = { "native", "generic" },
    size = "count",
  })
  if given.rate then
    local subject = given.link.name .. ", rate"
    given.rate = library.read(OP, subject, given.rate, {
      pps = "count!",
      burst = "count",
      per = { "source" },
      sources = "count",
    })
  end
  return given
end

function filter.xdp(options)
  local given = read(options)
  local link, rate = given.link, given.rate
  local denied = library.prefixes(OP, link.name, "deny", given.deny)
  local allowed = library.prefixes(OP, link.name, "allow", given.allow)
  local size = size_of(given, denied, allowed)
  local inside = { size = size }
  local self = setmetatable({ link = link, _ = inside }, Filter)
  inside.place = program.as(OP, link.name, stages.attach, "filter", link, given.mode, function(load)
    for name, value in pairs(rate_globals(rate)) do
      load.globals[name] = value
    end
    load.globals.fallback = given.default == "deny" and DENY or ALLOW
    load.max_entries = {
      prefixes4 = size,
      prefixes6 = size,
      sources = rate and rate.per and (rate.sources or 65536) or 1,
    }
    load.name = program.name_of("filter", link)
    -- A later load that says other networks makes them anew, to come all at once; counters and rates go on.
    load.fresh = { "prefixes4", "prefixes6", "lengths", "live" }
    load.said = library.words(denied.keys4, denied.keys6, allowed.keys4, allowed.keys6)
    inside.object = bpf.builtin("filter", load)
    -- One that says the same has what the script has changed since as it was.
    inside.object.maps.prefixes4:clear()
    inside.object.maps.prefixes6:clear()
    -- Complete before the first frame meets it.
    store(self, OP, denied, DENY)
    store(self, OP, allowed, ALLOW)
    return inside.object.programs.filter
  end)
  return self
end

function Filter:deny(networks)
  store(self, "filter:deny", library.prefixes("filter:deny", self.link.name, "networks", networks), DENY)
end

function Filter:allow(networks)
  store(self, "filter:allow", library.prefixes("filter:allow", self.link.name, "networks", networks), ALLOW)
end

function Filter:remove(networks)
  local found = library.prefixes("filter:remove", self.link.name, "networks", networks)
  local maps = self._.object.maps
  local removed = 0
  if found.count4 > 0 then
    removed = removed + maps.prefixes4:delete_many(found.keys4)
  end
  if found.count6 > 0 then
    removed = removed + maps.prefixes6:delete_many(found.keys6)
  end
  return removed
end

function Filter:stats()
  local stats = {}
  for i, fate in ipairs(FATES) do
    stats[fate] = self._.object.maps.counters:get(i - 1):sum()
  end
  return stats
end

function Filter:info()
  return program.as("filter:info", self.link.name, self._.place.info)
end

function Filter:detach()
  self._.place.detach()
end

return filter
