--- `police`: rate limits by match, on the tc hooks and at XDP. The eBPF half is bpf/police.bpf.c.

local _, cnf = ...
local bpf, chain, library, program, stages =
  cnf.bpf, cnf._chain, cnf._library, cnf._program, cnf._stages

local police = {}

-- PER_* of police.bpf.c.
local PER = { source = 1, destination = 2, flow = 7 }

-- BUCKET_SHIFT of bucket.h.
local BUCKET_SHIFT = 16

-- So that a packet of many segments fits.
local LEAST_BURST = 68 * 1024

local Limit = library.class("Limit", "limit", { "link", "direction", "hook" })
local limits = 0

function Limit:__tostring()
  return ("Limit(%s, %s)"):format(self.link.name, self.direction)
end

local function refuse(op, link, message, hint)
  cnf.error({ op = op, subject = link.name, code = "EINVAL", message = message, hint = hint })
end

--- One of `rate` and `pps`, and a burst in the same unit.
local function check_rate(op, link, given)
  if given.rate and given.pps then
    refuse(op, link, "rate and pps both say how fast")
  end
  if not given.rate and not given.pps then
    refuse(op, link, "it needs a rate", 'rate = "10mbit", or pps = 1000')
  end
  if given.rate and given.rate < 8 then
    refuse(op, link, ("rate must be 8 bits a second or more, got %d"):format(given.rate))
  end
  if given.burst and given.burst < 1 then
    refuse(op, link, "burst must be 1 or more, got 0")
  end
end

--- struct rate of bucket.h: what a byte or a packet costs, and how much a full bucket holds, in nanoseconds.
local function rate_of(given)
  local second = given.pps or given.rate / 8
  local burst = given.burst
  if not burst then
    burst = math.max(second // 10, given.pps and 5 or LEAST_BURST)
  end
  return {
    cost = math.floor(1e9 * (1 << BUCKET_SHIFT) / second),
    burst = math.floor(math.min(burst * 1e9 / second, 2.0 ^ 62)),
  }
end

local function read(options)
  local given = library.read("police.limit", nil, options, {
    link = "link!",
    direction = { "ingress", "egress" },
    hook = { "tc", "xdp" },
    rate = "rate",
    pps = "count",
    burst = "size",
    match = "match",
    per = { "source", "destination", "flow" },
    buckets = "count",
  })
  local link = given.link
  given.direction = given.direction or "ingress"
  given.hook = given.hook or "tc"
  check_rate("police.limit", link, given)
  if given.hook == "xdp" and given.direction == "egress" then
    refuse("police.limit", link, "xdp has no egress", 'hook = "tc" has')
  end
  if given.hook == "xdp" and given.match.mark then
    refuse("police.limit", link, "frames have no mark yet at xdp", 'hook = "tc" sees it')
  end
  return given
end

--- Loads the object with what `load` says besides, and fills its settings.
local function load_object(inside, given, load)
  load.name = program.name_of("police", given.link)
  local rate = rate_of(given)
  -- Another limit begins with a full bucket.
  load.fresh = { "police", "bucket" }
  load.said = library.words(given.match, rate)
  load.globals.per = PER[given.per] or 0
  load.globals.by_packets = given.pps and 1 or 0
  load.max_entries = { buckets = given.per and (given.buckets or 65536) or 1 }
  inside.object = bpf.builtin("police", load)
  inside.object.maps.police:set(0, { match = given.match, rate = rate })
end

function police.limit(options)
  local given = read(options)
  local link = given.link
  local inside = { by = given.pps and "pps" or "rate" }
  local self =
    setmetatable({ link = link, direction = given.direction, hook = given.hook, _ = inside }, Limit)
  program.as("police.limit", link.name, function()
    if given.hook == "xdp" then
      inside.place = stages.attach("police", link, nil, function(load)
        load.programs = { "police_xdp" }
        load_object(inside, given, load)
        return inside.object.programs.police_xdp
      end)
    else
      local name = "police_" .. given.direction
      load_object(inside, given, {
        programs = { name },
        globals = { headerless = program.headerless(link) and 1 or 0 },
      })
      inside.place =
        chain.attach(link, given.direction, inside.object.programs[name], ("police-%d"):format(limits))
    end
  end)
  limits = limits + 1
  return self
end

function Limit:set(options)
  local inside, op = self._, "limit:set"
  local given =
    library.read(op, self.link.name, options, { rate = "rate", pps = "count", burst = "size" })
  check_rate(op, self.link, given)
  if not given[inside.by] then
    refuse(op, self.link, ("it limits by %s"):format(inside.by), "make another one for the other unit")
  end
  local map = inside.object.maps.police
  local now = map:get(0)
  now.rate = rate_of(given)
  map:set(0, now)
  -- A full bucket: what is over is not held against the new rate. A later load that says it again leaves it as packets have it.
  if not library.loading() then
    inside.object.maps.bucket:set(0, 0)
    inside.object.maps.buckets:clear()
  end
end

function Limit:stats()
  return self._.object.maps.counters:get(0):sum()
end

function Limit:detach()
  self._.place:detach()
end

return police
