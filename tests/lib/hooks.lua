--- What the tests of the hooks share: programs that count their runs and note their turn, and what those say afterwards.

local cnf = require("cnf")
local source = require("source")
local probe, task = cnf.probe, cnf.task

local hooks = {}

--- C before the programs of an object: `ran(number, result)` counts a run of the program with that number in `hits`, and
--- notes in `turns` when it was, counted over all programs.
hooks.COUNTED = [[
MAP(hits, ARRAY, 8, __u32, __u64);
MAP(turns, ARRAY, 8, __u32, __u64);
__u64 turn = 0;
static __always_inline int ran(__u32 number, int result) {
  __u64 *hit = bpf_map_lookup_elem(&hits, &number), *last = bpf_map_lookup_elem(&turns, &number);
  if (hit && last) {
    __sync_fetch_and_add(hit, 1);
    *last = ++turn;
  }
  return result;
}
]]

--- A function that gives the object of the programs of a text behind COUNTED, one for all cases of a file, with nothing counted yet.
function hooks.counted(text)
  local object = source.once(hooks.COUNTED .. text)
  return function()
    local maps = object().maps
    maps.hits:clear()
    maps.turns:clear()
    return object()
  end
end

--- The names of the programs in a query's answer, in the order they run.
function hooks.names(query)
  local found = {}
  for i, program in ipairs(query.programs) do
    found[i] = program.name
  end
  return found
end

--- The numbers of the programs that the last packet met, in the order it met them.
function hooks.met(maps)
  local numbers = {}
  for number, turn in maps.turns:pairs() do
    if turn > 0 then
      numbers[#numbers + 1] = number
    end
  end
  table.sort(numbers, function(a, b)
    return maps.turns:get(a) < maps.turns:get(b)
  end)
  return numbers
end

--- Has the two programs of an attachment take turns, `rounds` times `pause` seconds apart, under a running ping of `count`
--- packets that loses none. The first of them is there before, and after an even number of rounds.
function hooks.take_turns(t, a, attachment, programs, turns)
  local flood = task.spawn(function()
    return probe.ping(a, "10.0.0.2", { count = turns.count, interval = turns.interval, timeout = 5 })
  end)
  for round = 1, turns.rounds do
    attachment:replace(programs[1 + round % 2])
    task.sleep(turns.pause)
  end
  local reply = flood:join()
  t:equal(reply.received, reply.sent)
end

return hooks
