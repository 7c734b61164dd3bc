--- Neighbour entries of both families.
package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local test, probe = cnf.test, cnf.probe
local pair = require("pair")

for _, ip in ipairs({ "10.0.0.9", "fd00::9" }) do
  test.case("entry for " .. ip, function(t)
    local a, _, v = pair(t)
    local options = { dst = ip, lladdr = "02:00:00:00:00:09", dev = v }
    local neigh = a:neigh(options)
    local info = neigh:info()
    t:equal({ info.dst, info.dev, info.lladdr, info.state }, { ip, "v0", "02:00:00:00:00:09", "permanent" })
    t:equal(#a:neighs({ dst = ip }), 1)
    t:equal(#a:neighs({ dst = ip, dev = "lo" }), 0)
    t:ok(tostring(neigh):find(ip .. " dev v0", 1, true))
    t:raises(function()
      a:neigh(options)
    end, "EEXIST")
    neigh:delete()
    t:raises(function()
      neigh:delete()
    end, "ENOENT")
  end)
end

test.case("a wrong one loses packets, the right one does not wait", function(t)
  local a, _, v, w = pair(t)
  for _, ip in ipairs({ "10.0.0.2", "fd00::2" }) do
    local wrong = a:neigh({ dst = ip, lladdr = "02:00:00:00:00:09", dev = v })
    t:equal(probe.ping(a, ip, { count = 1, timeout = 0.2 }).received, 0)
    wrong:delete()
    a:neigh({ dst = ip, lladdr = w:info().mac, dev = "v0" })
    t:equal(probe.ping(a, ip, { count = 1 }).received, 1)
  end
end)

test.case("what the kernel learns is listed", function(t)
  local a, _, _, w = pair(t)
  for _, ip in ipairs({ "10.0.0.2", "fd00::2" }) do
    t:eventually(function()
      return probe.ping(a, ip, { count = 1 }).received == 1
    end)
    t:equal(a:neighs({ dst = ip })[1].lladdr, w:info().mac)
  end
end)

test.case("bad entries", function(t)
  local a = pair(t)
  for _, row in ipairs({
    { "EINVAL", "dst is missing", { dev = "v0" } },
    { "EINVAL", "dev is missing", { dst = "10.0.0.9" } },
    { "EINVAL", "not an IP address", { dst = "10.0.0.9/24", dev = "v0" } },
    { "EINVAL", "MAC", { dst = "10.0.0.9", dev = "v0", lladdr = "02" } },
    { "EINVAL", "state", { dst = "10.0.0.9", dev = "v0", lladdr = "02:00:00:00:00:09", state = "gone" } },
    { "ENODEV", "no link", { dst = "10.0.0.9", dev = "zzz" } },
  }) do
    local error = t:raises(function()
      a:neigh(row[3])
    end, row[1])
    t:ok(tostring(error):find(row[2], 1, true), tostring(error))
  end
end)
