--- `_stages`: the library's XDP programs on one link. The dispatcher (bpf/dispatch.bpf.c) holds the hook; what it calls stands in an
--- array of programs, in the order of `places`.

local _, cnf = ...
local bpf, library, program, xdp = cnf.bpf, cnf._library, cnf._program, cnf.xdp

local stages = {}

--- First and last place of each kind.
local places = {
  filter = { 0, 3 },
  police = { 4, 9 },
  forward = { 15, 15 },
}

--- By link. A generation's own: the next one replaces them all.
local dispatchers = {}

--- How a dispatcher runs; nil when its device or its place is gone. One that waits for the commit runs as it was asked to.
local function mode_of(held)
  local ok, answer = pcall(held.attachment.info, held.attachment)
  if ok then
    return answer.mode
  end
  return answer.code == "EAGAIN" and (held.mode or "auto") or nil
end

--- The dispatcher of a link, made when there is none.
local function dispatcher(link, mode)
  local held = dispatchers[link]
  local runs = held and mode_of(held)
  if runs then
    if mode and runs ~= "auto" and runs ~= mode then
      cnf.error({
        code = "EBUSY",
        message = ("the library's programs run in %s mode here"):format(runs),
        hint = ('all of one link run in one mode: give the first of them mode = "%s"'):format(mode),
      })
    end
    return held
  end
  local object = bpf.builtin("dispatch", { name = program.name_of("dispatch", link) })
  -- A later load says all of its stages again. Those that differ come at the commit, each by one write.
  object.maps.stages:clear()
  held = {
    object = object,
    attachment = xdp.attach(link, object.programs.dispatch, { mode = mode }),
    mode = mode,
    users = 0,
    taken = {},
  }
  -- The kernel empties a program array when the last process lets go of it: a filter would end with its script.
  held.kept = library.keep("stages", link, object.maps.stages)
  dispatchers[link] = held
  return held
end

--- Takes part in a link's dispatcher, which stays until the last has left: a function that leaves it.
function stages.join(link, mode)
  local held = dispatcher(link, mode)
  held.users = held.users + 1
  local left = false
  return function()
    if left then
      return
    end
    left = true
    held.users = held.users - 1
    if held.users == 0 then
      held.attachment:detach()
      if held.kept then
        library.release(held.kept)
      end
      if dispatchers[link] == held then
        dispatchers[link] = nil
      end
    end
  end,
    held
end

local function free_place(kind, taken)
  for place = places[kind][1], places[kind][2] do
    if not taken[place] then
      return place
    end
  end
  local most = places[kind][2] - places[kind][1] + 1
  cnf.error({
    code = "EBUSY",
    message = ("%s %s of the library %s on this link already"):format(
      most == 1 and "a" or tostring(most),
      most == 1 and kind or kind .. "s",
      most == 1 and "is" or "are"
    ),
  })
end

--- Puts a program of a kind on a link. `load(options)` loads it, with its place and the array that it goes on with; what it
--- returns is the program. A place: `detach()`, and `info()` as an attachment's.
function stages.attach(kind, link, mode, load)
  local leave, held = stages.join(link, mode)
  local map = held.object.maps.stages
  local here
  local ok, problem = pcall(function()
    local place = free_place(kind, held.taken)
    map:set(place, load({ globals = { stage = place }, maps = { stages = map } }))
    held.taken[place], here = true, place
  end)
  if not ok then
    leave()
    error(problem, 0)
  end
  return {
    detach = function()
      if here then
        map:delete(here)
        held.taken[here], here = nil, nil
        leave()
      end
    end,
    info = function()
      local info = held.attachment:info()
      return { link = info.link, mode = info.mode, stage = here }
    end,
  }
end

return stages
