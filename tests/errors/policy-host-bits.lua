--- A policy matches networks, and addresses.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-policy-" .. cnf._test.pid())
local link = cnf.link.veth({ name = "eth0", netns = ns })
local router = cnf.policy.router({ attach = { { link, "egress" } } })
router:set({
  { from = "10.1.0.0/16", action = "drop" },
  { from = "10.0.0.1/8", action = "drop" },
})
