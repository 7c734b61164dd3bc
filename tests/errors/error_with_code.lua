--- The library's own kind of error, raised by a script.
local cnf = require("cnf")

cnf.error({
  op = "uplink.choose",
  subject = "isp1",
  code = "ENETUNREACH",
  message = "no uplink is left",
  hint = "bring one up with :up()",
})
