--- `lb`: services whose connections are shared among backends (bpf/lb.bpf.c). What the service is lives in its maps: this file
--- reads them back, so that a service that exists already goes on where it was.

local native, cnf = ...
local program, library = cnf._program, cnf._library

local lb = {}

local Service = library.class("Service", "service", { "name", "vip", "proto" })

function Service:__tostring()
  return ("Service(%s, %s %s)"):format(self.name, self.proto, self.vip)
end

--- What a service has that scripts do not see: its maps, its backends by number, its attachments.
local states = setmetatable({}, { __mode = "k" })

-- Backends and their numbers ------------------------------------------------------------------------------------------

local function key(backend)
  return backend.mapped .. " " .. backend.port
end

--- The backends that the maps know: an array of those in the tables and, by key, the numbers of all.
local function read_back(state)
  state.list, state.numbers, state.absent, state.last = {}, {}, {}, 0
  for number, row in state.maps.backends:pairs() do
    if row.at.port ~= 0 then
      local backend = { number = number, mapped = row.at.address, port = row.at.port, weight = row.weight }
      backend.address = backend.mapped:match("^::ffff:(%d+%.%d+%.%d+%.%d+)$") or backend.mapped
      state.numbers[key(backend)] = number
      state.last = math.max(state.last, number)
      local place = row.state == "ABSENT" and state.absent or state.list
      place[#place + 1] = backend
    end
  end
end

--- A number for a backend: its own if it had one, one that nobody had, or that of the one that has been away longest.
local function number_for(state, backend, taken)
  local number = state.numbers[key(backend)]
  if number then
    return number
  end
  if taken.last < 4095 then
    taken.last = taken.last + 1
    return taken.last
  end
  for _, old in ipairs(state.absent) do
    if not taken[old.number] then
      taken[old.number] = true
      return old.number, old
    end
  end
end

local function add_up(sum, counts)
  for word, value in pairs(counts) do
    if type(value) == "table" then
      sum[word] = add_up(sum[word] or {}, value)
    else
      sum[word] = (sum[word] or 0) + value
    end
  end
  return sum
end

local function counts_of(state, number)
  return state.maps.counters:get(number):sum()
end

--- Whether `list` says so already.
local function is_so(list, wanted)
  for i, backend in ipairs(wanted) do
    local row = list[i]
    if not row or key(row) ~= key(backend) or row.weight ~= backend.weight then
      return false
    end
  end
  return #wanted == #list
end

--- Writes the table that packets do not read and then the word that names it. A load that says its backends several times
--- writes the same one each time: the other is read until its commit.
local function publish(state, wanted)
  local maps, loading = state.maps, library.loading()
  local service = maps.service:get(0)
  if not (loading and state.before) then
    state.before = loading and { live = service.live, list = state.list }
    service.live = 1 - service.live
  end
  if state.before and is_so(state.before.list, wanted) then
    library.unsay(maps.tables, string.pack("=I4", service.live))
    service.live, state.before = state.before.live, nil
  else
    maps.tables:set_many({ string.pack("=I4", service.live), native.table(wanted) })
  end
  maps.service:set(0, service)
end

--- Makes `wanted` the backends. Nothing that packets see changes before the one store that names the new table.
local function replace(state, wanted)
  if is_so(state.list, wanted) then
    return
  end
  local maps, taken = state.maps, { last = state.last }
  for _, backend in ipairs(wanted) do
    local number = state.numbers[key(backend)]
    taken[number or 0] = true
  end
  local reused = {}
  for _, backend in ipairs(wanted) do
    local number, old = number_for(state, backend, taken)
    backend.number = number
    reused[#reused + 1] = old
  end
  for _, old in ipairs(reused) do
    -- Another's number: what it counted stays in the total.
    state.gone = add_up(state.gone, counts_of(state, old.number))
    maps.counters:set(old.number, {})
    state.numbers[key(old)] = nil
  end
  local kept = {}
  for _, backend in ipairs(wanted) do
    kept[backend.number] = true
    state.numbers[key(backend)] = backend.number
    maps.backends:set(backend.number, {
      at = { address = backend.mapped, port = backend.port },
      weight = backend.weight,
      state = backend.weight > 0 and "SERVING" or "DRAINING",
    })
  end
  local absent = {}
  for _, place in ipairs({ state.absent, state.list }) do
    for _, old in ipairs(place) do
      if not kept[old.number] and state.numbers[key(old)] then
        absent[#absent + 1] = old
        maps.backends:set(old.number, { at = { address = old.mapped, port = old.port }, state = "ABSENT" })
      end
    end
  end
  publish(state, wanted)
  state.absent, state.list, state.last = absent, wanted, taken.last
end

-- The hooks ------------------------------------------------------------------------------------------------------------

--- By link, then by hook and name or address: the services of this load, `{name, where}`.
local taken = {}

--- What of its hooks a service has for itself: its name, and its address and port.
local function claims(self, given)
  local keys = {}
  for _, place in ipairs(given.places) do
    local hook = ("%s of %s"):format(place[2], place[1].name)
    for _, what in ipairs({ self.name, self.vip .. "/" .. self.proto }) do
      keys[#keys + 1] = { link = place[1], key = place[2] .. " " .. what, hook = hook, what = what }
    end
  end
  return keys
end

--- Refuses what another service of this load has already.
local function unclaimed(self, keys)
  for _, claim in ipairs(keys) do
    local first = (taken[claim.link] or {})[claim.key]
    if first and first.name == self.name then
      cnf.error({
        op = "lb.service",
        subject = self.name,
        code = "EEXIST",
        message = ('service "%s" is on %s already, by %s'):format(first.name, claim.hook, first.where),
        hint = "give each of one hook a name of its own, or change the one that is there: s:set_backends{...}",
      })
    elseif first then
      cnf.error({
        op = "lb.service",
        subject = self.name,
        code = "EEXIST",
        message = ('service "%s" has %s on %s already, by %s'):format(first.name, claim.what, claim.hook, first.where),
        hint = "one service has an address and port: give it the backends of both",
      })
    end
  end
end

-- The module ----------------------------------------------------------------------------------------------------------

--- Balances a virtual address among backends.
function lb.service(options)
  local given = native.service(options)
  local name = given.name
  local self = { name = name, vip = given.vip, proto = given.proto }
  local keys = claims(self, given)
  unclaimed(self, keys)
  program.as("lb.service", name, function()
    local needed, which = {}, {}
    for _, place in ipairs(given.places) do
      local link = place[1]
      which[link] = program.headerless(link) and "lb_l3" or "lb_l2"
      needed[which[link]] = true
    end
    local names = {}
    for program_name in pairs(needed) do
      names[#names + 1] = program_name
    end
    local object = cnf.bpf.builtin("lb", {
      -- Its identity: a later load goes on with the maps of the one before.
      name = ("lb/%s/%s"):format(given.places[1][1].netns.name, name),
      programs = names,
      max_entries = { flows = 2 * given.connections },
    })
    local state = { maps = object.maps, gone = {}, idle = given.idle, protocol = given.protocol }
    read_back(state)
    local service = object.maps.service:get(0)
    local changed = false
    for _, word in ipairs({ "address", "port", "protocol", "idle" }) do
      changed = changed or service[word] ~= given[word]
      service[word] = given[word]
    end
    if changed then
      object.maps.service:set(0, service)
    end
    replace(state, given.backends)
    state.attachments = program.attach("service", name, given.places, function(link)
      return object.programs[which[link]]
    end)
    state.claims = keys
    states[self] = state
  end)
  local claim = { name = name, where = library.here() or "a line before" }
  for _, one in ipairs(keys) do
    taken[one.link] = taken[one.link] or {}
    taken[one.link][one.key] = claim
  end
  return setmetatable(self, Service)
end

--- Replaces all backends at once.
function Service:set_backends(list)
  replace(states[self], native.backends("service:set_backends", self.name, self.vip, list))
end

local function find(self, op, value)
  local state, wanted = states[self], native.backend(op, self.name, self.vip, value)
  local number = state.numbers[key(wanted)]
  if not number then
    cnf.error({
      op = op,
      subject = self.name,
      code = "ENOENT",
      message = ("there is no backend %s port %d"):format(wanted.address, wanted.port),
    })
  end
  return number
end

--- Gives a backend no new connections; those that it has go on.
function Service:drain(backend)
  local state, number, wanted = states[self], find(self, "service:drain", backend), {}
  for i, row in ipairs(state.list) do
    wanted[i] = row
    if row.number == number then
      wanted[i] = { mapped = row.mapped, address = row.address, port = row.port, weight = 0 }
    end
  end
  replace(state, wanted)
end

--- The backends as they could be given to `set_backends`.
function Service:list()
  local list = {}
  for i, row in ipairs(states[self].list) do
    list[i] = { address = row.address, port = row.port, weight = row.weight }
  end
  return list
end

--- What each backend has got, in the order of the list, and `total`.
function Service:stats()
  local state, list = states[self], self:list()
  local nobody = counts_of(state, 0)
  local total = add_up({ unserved = nobody.requests }, state.gone)
  add_up(total, { begun = 0, requests = { packets = 0, bytes = 0 }, replies = { packets = 0, bytes = 0 } })
  for i, row in ipairs(state.list) do
    list[i].state = row.weight > 0 and "serving" or "draining"
    add_up(list[i], counts_of(state, row.number))
    add_up(total, counts_of(state, row.number))
  end
  for _, row in ipairs(state.absent) do
    add_up(total, counts_of(state, row.number))
  end
  list.total = total
  return list
end

--- How many connections are alive: of one backend, or of all.
function Service:connections(backend)
  local state = states[self]
  local number = backend ~= nil and find(self, "service:connections", backend)
  local alive, sum = native.established(state.maps.flows, state.protocol, state.idle), 0
  if number then
    return alive[number] or 0
  end
  for _, count in pairs(alive) do
    sum = sum + count
  end
  return sum
end

--- Forgets the connections of a backend that is dead: their next packets go to others.
function Service:forget(backend)
  local flows = states[self].maps.flows
  local keys, count = native.flows_of(flows, find(self, "service:forget", backend))
  flows:delete_many(keys)
  return count
end

--- Takes the service off its hooks. It can still be read.
function Service:detach()
  local state = states[self]
  program.detach(state.attachments)
  for _, claim in ipairs(state.claims) do
    taken[claim.link][claim.key] = nil
  end
  state.claims = {}
end

return lb
