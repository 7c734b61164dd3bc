---@meta cnf.tcx

--- The tcx hooks of a link: programs before the network stack sees what comes in, and after it has made what goes out
--- (Linux 6.6, kernel/bpf/tcx.c). Several programs run one after the other: one that returns -1 (TCX_NEXT) lets the
--- next run, any other result ends the chain. At egress the neighbour has been resolved already.
---@class cnf.tcx
local tcx = {}

--- What `tcx.attach` takes besides.
---@class cnf.TcxOptions: cnf.AttachOptions
---@field expected_revision? integer Of `tcx.query`: ESTALE when the hook has changed since.

--- Puts a program on a hook. Raises EEXIST when the program, or the slot, is there already; ENOENT when the anchor is
--- not; ESTALE; ERANGE beyond 63 programs; EINVAL for an xdp program; ENODEV when the device is gone; EOPNOTSUPP
--- before Linux 6.6 (`bpf.attach` takes clsact there); EPERM without CAP_NET_ADMIN.
---@param link cnf.Link
---@param direction "ingress"|"egress"
---@param program cnf.Program
---@param options? cnf.TcxOptions
---@return cnf.Attachment
function tcx.attach(link, direction, program, options) end

--- What runs there, whoever put it there.
---@param link cnf.Link
---@param direction "ingress"|"egress"
---@return cnf.HookQuery
function tcx.query(link, direction) end

return tcx
