--- `_chain`: where the library's programs stand on a tc hook. In the order of `ranks`, both ways; what a script attaches itself
--- comes behind them, the policy router last; what copies packets as they leave stands behind all that is there.

local _, cnf = ...
local bpf = cnf.bpf

local chain = {}

--- By the names of programs, as the kernel has them.
local ranks = {
  chaos_ingress = 1,
  chaos_egress = 1,
  mirror_in = 2,
  mirror_in_l3 = 2,
  police_ingress = 3,
  police_egress = 3,
  flow_ingress = 4,
  flow_egress = 4,
  lb_l2 = 5,
  lb_l3 = 5,
  ingress = 100,
  egress = 100,
  ingress_l3 = 100,
  egress_l3 = 100,
  mirror_out = 101,
  mirror_out_l3 = 101,
}
local OTHERS = 50

--- Attaches a program of the library in its place: behind those of its rank.
function chain.attach(link, direction, program, slot)
  local rank, behind = ranks[program.name], {}
  if rank > OTHERS then
    return bpf.attach(link, direction, program, { slot = slot, last = true })
  end
  for name, other in pairs(ranks) do
    if other <= rank then
      behind[#behind + 1] = name
    end
  end
  table.sort(behind)
  return bpf.attach(link, direction, program, { slot = slot, behind = behind })
end

return chain
