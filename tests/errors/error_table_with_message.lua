--- A table with the fields of cnf.error, raised by itself.
local function fail()
  error({ code = "ENETUNREACH", message = "no uplink is left", hint = "bring one up" })
end
fail()
