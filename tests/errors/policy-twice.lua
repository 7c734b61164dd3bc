--- Two policies of one set match the same.
local cnf = require("cnf")
local ns = cnf.netns.new("golden-policy-" .. cnf._test.pid())
local link = cnf.link.veth({ name = "eth0", netns = ns })
local router = cnf.policy.router({ attach = { { link, "egress" } } })
router:set({
  { from = "10.1.0.0/16", action = "drop" },
  { from = "10.2.0.0/16", action = "drop" },
  { from = "10.1.0.0/16", action = "pass" },
})
