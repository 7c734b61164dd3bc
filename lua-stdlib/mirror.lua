--- `mirror`: copies of some of a link's packets to another link (bpf/mirror.bpf.c).

local native, cnf = ...
local program = cnf._program

local mirror = {}

local state = setmetatable({}, { __mode = "k" })

local Mirror = cnf._library.class("Mirror", "mirror", { "name", "from", "to" })

function Mirror:__tostring()
  return ("Mirror(%s: %s to %s)"):format(self.name, self.from.name, self.to.name)
end

--- Copies packets that pass `from` to `to`.
function mirror.to(options)
  local given = native.to(options)
  local from, to, name = given.from, given.to, given.name
  local subject = ("%s to %s"):format(from.name, to.name)
  local self = { name = name, from = from, to = to }
  program.as("mirror.to", subject, function()
    -- Both are asked: one that is gone is no target.
    local headerless, target_headerless = program.headerless(from), program.headerless(to)
    if headerless and not target_headerless then
      cnf.error({
        code = "EINVAL",
        message = ("frames of %s have no link header, and %s needs one"):format(from.name, to.name),
        hint = "copy to a link without one too, such as a tun",
      })
    end
    local tail = headerless and "_l3" or ""
    local which = { ingress = "mirror_in" .. tail, egress = "mirror_out" .. tail }
    local places, needed = {}, {}
    for i, direction in ipairs(given.directions) do
      places[i], needed[i] = { from, direction, next(given.order) and given.order }, which[direction]
    end
    local object = cnf.bpf.builtin("mirror", { name = ("mirror/%s/%s/%s"):format(from.netns.name, from.name, name), programs = needed })
    object.maps.mirror:set(0, { match = given.match, sample = given.sample, ifindex = to.index })
    local attachments = program.attach("mirror", name, places, function(_, direction)
      return object.programs[which[direction]]
    end)
    state[self] = { attachments = attachments, counters = object.maps.counters }
  end)
  return setmetatable(self, Mirror)
end

--- Packets and bytes that came by, that were copied, and that the kernel refused to copy.
function Mirror:stats()
  return state[self].counters:get(0):sum()
end

--- Ends the copying; nothing happens when it has ended.
function Mirror:detach()
  program.detach(state[self].attachments)
end

return mirror
