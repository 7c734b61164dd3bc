--- Queueing disciplines: set, listed, felt by packets.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local test, probe = cnf.test, cnf.probe
local pair, refused = require("pair"), require("refused")

local function at(l, parent)
  for _, q in ipairs(l:qdisc()) do
    if q.parent == parent then
      return q.kind
    end
  end
end

for number, row in ipairs({
  { "netem", { delay = "10ms", jitter = 0.001, loss = "1%", duplicate = 0.01, corrupt = "0.1%", reorder = "25%",
    rate = "10mbit", limit = 500, seed = 7 } },
  { "netem", { gemodel = { p = "1%", r = "10%", loss_bad = 0.7, loss_good = 0 } } },
  { "tbf", { rate = "10mbit", burst = "10k", latency = "50ms" } },
  { "tbf", { rate = 10000000, burst = 10240, limit = "64k" } },
  { "htb", { rate = "10mbit", ceil = "20mbit" } },
  { "fq", { limit = 500, maxrate = "10mbit" } },
  { "fq_codel", { limit = 500, target = "5ms", ecn = false } },
  { "clsact", {} },
}) do
  local kind, options = row[1], row[2]
  test.case(("%s is set, twice the same, and carries packets (%d)"):format(kind, number), function(t)
    t:requires(kind)
    local a, _, v = pair(t)
    options.kind = kind
    v:qdisc(options)
    v:qdisc(options)
    t:equal(at(v, kind == "clsact" and "ingress" or "root"), kind)
    if kind ~= "netem" then
      t:eventually(function()
        return probe.ping(a, "10.0.0.2", { count = 1, timeout = 0.5 }).received == 1
      end)
    end
  end)
end

test.case("netem's delay and loss are seen by ping", function(t)
  t:requires("netem")
  local a, _, v = pair(t)
  for _, ip in ipairs({ "10.0.0.2", "fd00::2" }) do
    t:eventually(function()
      return probe.ping(a, ip, { count = 1, timeout = 0.5 }).received == 1
    end)
    v:qdisc({ kind = "netem", delay = "60ms" })
    local result = probe.ping(a, ip, { count = 3, interval = 0.01, timeout = 5 })
    t:equal(result.received, 3)
    t:ok(result.rtt.min >= 0.06, result.rtt.min)
    v:qdisc({ kind = "netem", loss = 1 })
    t:equal(probe.ping(a, ip, { count = 3, interval = 0.01, timeout = 0.3 }).loss, 1.0)
    v:qdisc({ kind = "netem" })
  end
end)

test.case("tbf limits the rate", function(t)
  t:requires("tbf")
  local a, b, v = pair(t)
  probe.serve(b, { tcp = 80 })
  local bytes = ("x"):rep(100000)
  v:qdisc({ kind = "tbf", rate = "4mbit", burst = "5k", latency = "1s" })
  local result = probe.tcp(a, "10.0.0.2:80", { send = bytes, timeout = 20 })
  t:equal(#result.reply, #bytes)
  t:ok(result.total > 0.15, result.total)
end)

test.case("bad disciplines", function(t)
  local _, _, v = pair(t)
  for _, row in ipairs({
    { "kind is missing", {} },
    { 'did you mean "netem"', { kind = "nettem" } },
    { 'did you mean "delay"', { kind = "netem", dely = 1 } },
    { "not a duration", { kind = "netem", delay = "10 parsecs" } },
    { "not a share", { kind = "netem", loss = "150%" } },
    { "not a rate", { kind = "netem", rate = "fast" } },
    { "rate is missing", { kind = "tbf", burst = "5k" } },
    { "burst is missing", { kind = "tbf", rate = "5mbit" } },
    { "not a size", { kind = "tbf", rate = "5mbit", burst = "much" } },
  }) do
    refused(t, "EINVAL", row[1], v.qdisc, v, row[2])
  end
end)

test.case("one that the kernel lacks is named", function(t)
  local _, _, v = pair(t)
  for _, kind in ipairs({ "netem", "fq", "fq_codel" }) do
    if not cnf.probe_feature(kind) then
      local error = t:raises(function()
        v:qdisc({ kind = kind })
      end, "EOPNOTSUPP")
      t:ok(tostring(error):find("CONFIG_NET_SCH_" .. kind:upper(), 1, true), tostring(error))
    end
  end
end)
