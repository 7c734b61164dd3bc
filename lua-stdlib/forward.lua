--- `forward`: frames forwarded by the kernel's routes, at XDP. The eBPF half is bpf/forward.bpf.c.

local _, cnf = ...
local bpf, library, program, stages = cnf.bpf, cnf._library, cnf._program, cnf._stages

local forward = {}

local OP = "forward.xdp"

-- enum fate of forward.bpf.c.
local FATES = { "forwarded", "stack", "no_neighbour", "too_big", "expired", "no_port" }

local Forward = library.class("Forward", "forward", { "links" })

local function names(links)
  local list = {}
  for i, link in ipairs(links) do
    list[i] = link.name
  end
  return table.concat(list, ", ")
end

function Forward:__tostring()
  return ("Forward(%s)"):format(names(self.links))
end

--- The links, all in one namespace: indexes and routes mean what they mean there.
local function read(options)
  local given = library.read(OP, nil, options, { links = "table!", mode = { "native", "generic" } })
  local links = {}
  for i, link in ipairs(given.links) do
    links[i] = library.read(OP, ("links[%d]"):format(i), { link = link }, { link = "link!" }).link
  end
  if #links == 0 then
    cnf.error({ op = OP, code = "EINVAL", message = "links must be an array of one or more" })
  end
  for _, link in ipairs(links) do
    if link.netns ~= links[1].netns then
      cnf.error({
        op = OP,
        subject = names(links),
        code = "EXDEV",
        message = ("%s and %s are in different namespaces"):format(links[1].name, link.name),
        hint = "forwarding is by the routes of one namespace",
      })
    end
  end
  return links, given.mode
end

--- Frames that come over a veth pair carry checksums that a card was to finish, and a veth end takes redirected frames only when
--- the other end polls: in the network stack both are seen to.
local function mode_for(links, mode)
  if mode then
    return mode
  end
  for _, link in ipairs(links) do
    if link.kind == "veth" then
      return "generic"
    end
  end
  return nil
end

local function mac_bytes(link)
  local mac = link:info().mac
  local bytes = {}
  for byte in (mac and #mac == 17 and mac or ""):gmatch("%x%x") do
    bytes[#bytes + 1] = tonumber(byte, 16)
  end
  if #bytes ~= 6 then
    cnf.error({ code = "EINVAL", message = "its frames have no link header" })
  end
  bytes[7], bytes[8] = 0, 0
  return bytes
end

--- In native mode the far end of a veth pair must run a program too, to take what is redirected (veth_xdp_xmit,
--- drivers/net/veth.c): an empty dispatcher.
local function join_peer(link, leaves)
  if link.kind ~= "veth" then
    return
  end
  local peer = link:peer()
  if peer and #cnf.xdp.query(peer).programs == 0 then
    leaves[#leaves + 1] = stages.join(peer, "native")
  end
end

function forward.xdp(options)
  local links, asked = read(options)
  local mode = mode_for(links, asked)
  local inside = { places = {}, objects = {}, leaves = {} }
  local self = setmetatable({ links = links, _ = inside }, Forward)
  local said = library.words(names(links))
  local ok, problem = pcall(function()
    for i, link in ipairs(links) do
      program.as(OP, link.name, function()
        if mode == "native" then
          join_peer(link, inside.leaves)
        end
        inside.places[i] = stages.attach("forward", link, mode, function(load)
          load.name = program.name_of("forward", link)
          load.fresh, load.said = { "ports" }, said
          load.globals.mac = mac_bytes(link)
          if i > 1 then
            load.maps.ports = inside.objects[1].maps.ports
            load.maps.counters = inside.objects[1].maps.counters
          end
          inside.objects[i] = bpf.builtin("forward", load)
          return inside.objects[i].programs.forward
        end)
      end)
    end
    -- Last: no frame leaves by a link that does not take part.
    for _, link in ipairs(links) do
      inside.objects[1].maps.ports:set(link.index, link)
    end
  end)
  if not ok then
    self:detach()
    error(problem, 0)
  end
  return self
end

function Forward:stats()
  local stats = {}
  for i, fate in ipairs(FATES) do
    stats[fate] = self._.objects[1].maps.counters:get(i - 1):sum()
  end
  return stats
end

function Forward:info()
  local all = {}
  for i, place in ipairs(self._.places) do
    all[i] = program.as("forward:info", self.links[i].name, place.info)
  end
  return all
end

function Forward:detach()
  for _, place in ipairs(self._.places) do
    place.detach()
  end
  for _, leave in ipairs(self._.leaves) do
    leave()
  end
end

return forward
