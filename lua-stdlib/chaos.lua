--- `chaos`: faults on links. The eBPF half is bpf/chaos.bpf.c.

local _, cnf = ...
local bpf, chain, library, task = cnf.bpf, cnf._chain, cnf._library, cnf.task
local as = cnf._program.as

local chaos = {}

-- enum loss of chaos.bpf.c.
local LOSS_SHARE, LOSS_EVERY, LOSS_GEMODEL, LOSS_ALL = 1, 2, 3, 4

-- What netem has and this has not yet.
local LATER = { delay = true, jitter = true, reorder = true, rate = true }

--- Those that have not been healed, by number.
local active = {}
local injected = 0

--- Where this script's places start (COPY_MARK of chaos.bpf.c): scripts on one hook should not share any.
local function first_place()
  local known = library.recall("chaos")
  if not known then
    known = { first = (library.clock()) // 1000 % 768 }
  end
  library.remember("chaos", known)
  return known.first
end

--- What is not said, of the fault `key`: its seed, and when it ends. A fault that a later load of the script says again goes on
--- as it was, until it has ended or is healed.
local function life_of(key, given)
  local now = library.clock()
  local life = library.recall(key)
  if not life or (life.ends and life.ends <= now) then
    life = { fresh = true, born = now, seed = given.seed or math.random(0, 1 << 53) }
    if given.duration then
      life.ends = now + math.floor(given.duration * 1e9)
    end
  end
  return life
end

local Fault = library.class("Fault", "fault", { "link", "direction", "seed" })

function Fault:__tostring()
  return ("Fault(%s, %s)"):format(self.link.name, self.direction)
end

--- A share as a chance of 2^32.
local function chance(share)
  return math.floor(share * 4294967296 + 0.5)
end

local function refuse(link, code, message, hint)
  cnf.error({ op = "chaos.inject", subject = link.name, code = code, message = message, hint = hint })
end

local function read(link, options)
  for word in pairs(type(options) == "table" and options or {}) do
    if LATER[word] then
      refuse(
        link,
        "EINVAL",
        ("%s is not there yet"):format(word),
        ('l:qdisc{kind = "netem", %s = ...} does it where the kernel has netem'):format(word)
      )
    end
  end
  local by_count = type(options) == "table" and type(options.loss) == "table"
  local given = library.read("chaos.inject", link.name, options, {
    direction = { "ingress", "egress", "both" },
    loss = by_count and "table" or "share",
    duplicate = "share",
    corrupt = "share",
    blackhole = "boolean",
    gemodel = "table",
    match = "match",
    seed = "integer",
    duration = "duration",
  })
  if by_count then
    given.every = library.read("chaos.inject", link.name .. ", loss", given.loss, { every = "count!" }).every
  end
  if given.gemodel then
    given.gemodel = library.read("chaos.inject", link.name .. ", gemodel", given.gemodel, {
      p = "share!",
      r = "share",
      loss_bad = "share",
      loss_good = "share",
    })
  end
  return given
end

local function check(link, given)
  local ways = {}
  for _, word in ipairs({ "loss", "gemodel", "blackhole" }) do
    if given[word] then
      ways[#ways + 1] = word
    end
  end
  if #ways > 1 then
    refuse(link, "EINVAL", ("%s and %s both say what is lost"):format(ways[1], ways[2]))
  end
  if #ways == 0 and not given.duplicate and not given.corrupt then
    refuse(
      link,
      "EINVAL",
      "there is nothing to inject",
      "one or more of loss, gemodel, blackhole, duplicate and corrupt"
    )
  end
  if given.seed and given.seed < 0 then
    refuse(link, "EINVAL", ("seed must be 0 or more, got %d"):format(given.seed))
  end
end

--- The global variables of chaos.bpf.c.
local function globals(link, given, seed)
  local values = {
    seed = seed,
    place = (first_place() + injected) % 1024,
    headerless = cnf._program.headerless(link) and 1 or 0,
    duplicate_chance = chance(given.duplicate or 0),
    corrupt_chance = chance(given.corrupt or 0),
  }
  if given.blackhole then
    values.loss = LOSS_ALL
  elseif given.every then
    values.loss, values.loss_every = LOSS_EVERY, given.every
  elseif given.gemodel then
    local model = given.gemodel
    values.loss = LOSS_GEMODEL
    values.turns_bad = chance(model.p)
    values.turns_good = chance(model.r or 1 - model.p)
    values.loss_bad = chance(model.loss_bad or 1)
    values.loss_good = chance(model.loss_good or 0)
  elseif given.loss then
    values.loss, values.loss_chance = LOSS_SHARE, chance(given.loss)
  end
  return values
end

--- Puts a fault's programs on the hooks.
local function attach_all(fault)
  local inside, direction = fault._, fault.direction
  local ways = direction == "both" and { "ingress", "egress" } or { direction }
  for i, way in ipairs(ways) do
    local program = inside.object.programs["chaos_" .. way]
    inside.attachments[i] = chain.attach(fault.link, way, program, ("chaos-%d"):format(inside.number))
  end
end

local function inject(link, given)
  local said = library.words(given)
  -- The same again on one link is another one.
  local key = ("%s/%d/%s"):format(cnf._program.name_of("chaos", link), injected, said)
  local life = life_of(key, given)
  local object = bpf.builtin("chaos", {
    name = cnf._program.name_of("chaos", link),
    globals = globals(link, given, life.seed),
    -- A later load that says another fault, or the same after its end, begins anew.
    fresh = { "fault", "settings", "deadline", "stash" },
    said = library.words(said, life.born),
  })
  local fault = setmetatable({
    link = link,
    direction = given.direction or "egress",
    seed = life.seed,
    _ = { object = object, attachments = {}, number = injected, key = key },
  }, Fault)
  object.maps.settings:set(0, { match = given.match })
  -- Before it is on, so that it is never without; and after, so that it has its whole time.
  object.maps.deadline:set(0, life.ends or 0)
  injected = injected + 1
  active[fault._.number] = fault
  local ok, problem = pcall(attach_all, fault)
  if not ok then
    fault:heal()
    error(problem, 0)
  end
  if given.duration then
    local now = library.clock()
    if life.fresh then
      life.ends = now + math.floor(given.duration * 1e9)
      object.maps.deadline:set(0, life.ends)
    end
    -- The program looks at the clock itself; this takes it off.
    fault._.ending = task.after((life.ends - now) / 1e9, function()
      fault._.ending = nil
      fault:heal()
    end)
  end
  life.fresh = nil
  library.remember(key, life)
  return fault
end

function chaos.inject(link, options)
  library.read("chaos.inject", nil, { link = link }, { link = "link!" })
  local given = read(link, options)
  check(link, given)
  return (as("chaos.inject", link.name, inject, link, given))
end

function Fault:heal()
  local inside = self._
  active[inside.number] = nil
  library.forget(inside.key)
  for _, attachment in ipairs(inside.attachments) do
    attachment:detach()
  end
  inside.attachments = {}
  if inside.ending then
    inside.ending:cancel()
    inside.ending = nil
  end
end

function Fault:info()
  local inside = self._
  local now, deadline = inside.object.maps.fault:get(0), inside.object.maps.deadline:get(0)
  local remaining
  if deadline > 0 then
    remaining = math.max(0, (deadline - (library.clock())) / 1e9)
  end
  return {
    link = self.link.name,
    direction = self.direction,
    seed = self.seed,
    active = #inside.attachments > 0 and remaining ~= 0,
    remaining = remaining,
    matched = now.matched,
    lost = now.lost,
    duplicated = now.duplicated,
    corrupted = now.corrupted,
    failed = now.failed,
  }
end

function chaos.heal_all()
  for _, fault in pairs(active) do
    fault:heal()
  end
end

return chaos
