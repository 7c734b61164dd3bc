--- What both scripts of the crash test begin with.

local bpf = require("cnf").bpf

local common = {}

--- What this kernel lacks is left out.
function common.maybe(make, ...)
  local ok, made = pcall(make, ...)
  if not ok and made.code ~= "EOPNOTSUPP" then
    error(made, 0)
  end
  return ok and made or nil
end

local SOURCE = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, __u64); } ID_m SEC(".maps");
SEC("tc") int ID_t(struct __sk_buff *skb) { __u32 k = 0; bpf_map_lookup_elem(&ID_m, &k); STEP_T return -1; }
SEC("tc") int ID_u(struct __sk_buff *skb) { STEP_U return -1; }
SEC("xdp") int ID_x(struct xdp_md *ctx) { return STEP_X XDP_PASS; }
char _license[] SEC("license") = "GPL";
]]

--- A map, two tc programs and one for XDP, named by `id`; `steps` tells a version from others. The map and the programs.
function common.programs(id, steps)
  local source = SOURCE:gsub("STEP_(%u)", steps):gsub("ID", id)
  local object = bpf.compile({ source = source }, { name = id })
  local programs = object.programs
  return object.maps[id .. "_m"], programs[id .. "_t"], programs[id .. "_u"], programs[id .. "_x"]
end

return common
