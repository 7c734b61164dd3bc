--- C of tests: what their sources begin and end with, and the objects of them.

local bpf = require("cnf").bpf

local source = {}

--- The headers that every program needs; `MAP` declares a map of a kind with that many entries, its key's and value's
--- types and further members, such as `LAZY`.
source.HEAD = [[
#include <stddef.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#define MAP(name, kind, entries, k, v, ...)                                              \
  struct { __uint(type, BPF_MAP_TYPE_##kind); __uint(max_entries, entries);              \
    __type(key, k); __type(value, v); __VA_ARGS__ } name SEC(".maps")
#define LAZY __uint(map_flags, BPF_F_NO_PREALLOC);
]]

source.LICENSE = 'char LICENSE[] SEC("license") = "GPL";\n'

--- A whole source: `text` between the two.
function source.whole(text)
  return source.HEAD .. text .. "\n" .. source.LICENSE
end

function source.compile(text, options)
  return bpf.compile({ source = source.whole(text) }, options)
end

--- A function that gives the object of a text, one for all cases of a file.
function source.once(text)
  local object
  return function()
    object = object or source.compile(text)
    return object
  end
end

return source
