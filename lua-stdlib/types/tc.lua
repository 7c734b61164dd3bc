---@meta cnf.tc

--- Legacy clsact: a direct-action filter for each program, by priority, lower first; for kernels before tcx
--- (`tc-bpf(8)`, net/sched/cls_bpf.c). The clsact qdisc is made when needed, and removed with the last filter if it
--- was made here. A program that returns -1 (TC_ACT_UNSPEC) lets the next run.
---@class cnf.tc
local tc = {}

--- What `tc.attach` takes besides.
---@class cnf.TcOptions: cnf.AttachOptions
---@field priority? integer 1 to 65535, in place of an order word; these choose one with room around it.
---@field handle? integer 1 by default: filters of one priority differ in it.

--- Puts a program on a hook. Raises EEXIST when the slot, or the priority and handle, is taken; ENOENT when the anchor
--- is not there; ERANGE when there is no number left between two filters; EINVAL for an xdp program; ENODEV when the
--- device is gone; EPERM without CAP_NET_ADMIN.
---@param link cnf.Link
---@param direction "ingress"|"egress"
---@param program cnf.Program
---@param options? cnf.TcOptions
---@return cnf.Attachment
function tc.attach(link, direction, program, options) end

--- The eBPF filters there, whoever put them there. `revision` is 0: clsact does not count.
---@param link cnf.Link
---@param direction "ingress"|"egress"
---@return cnf.HookQuery
function tc.query(link, direction) end

return tc
