---@meta cnf.xdp

--- The XDP hook of a link: one program, before the kernel has made a packet of the frame (net/core/dev.c).
---@class cnf.xdp
local xdp = {}

--- Puts a program on the hook: in the driver if it can, in the network stack if it cannot; `:info().mode` says which.
---
--- Raises EBUSY when a program is there, naming it; EOPNOTSUPP when a mode was asked for that the device does not
--- have; EINVAL for a tc program; ENODEV when the device is gone; EPERM without CAP_NET_ADMIN.
---@param link cnf.Link
---@param program cnf.Program
---@param options? {mode: "native"|"generic"|"offload"?, slot: string?}
---@return cnf.Attachment
function xdp.attach(link, program, options) end

--- What runs there, whoever put it there: one program or none.
---@param link cnf.Link
---@return cnf.HookQuery
function xdp.query(link) end

return xdp
