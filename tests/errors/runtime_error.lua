--- The line is that of the failing operation, not of the caller.
local function via(route)
  return route.gateway.address
end

via({})
