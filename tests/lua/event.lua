--- The kernel's notifications.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local refused = require("refused")
local test, link, event, task = cnf.test, cnf.link, cnf.event, cnf.task

local function pair(t)
  local a, b = t:netns("a"), t:netns("b")
  local v, w = link.veth({ name = "v0", netns = a, peer = { name = "w0", netns = b } })
  return a, b, v, w
end

--- Subscribes, and a function that waits for an event with those fields.
local function listen(t, kind, options)
  local seen = {}
  local subscription = event.on(kind, options, function(e)
    seen[#seen + 1] = e
  end)
  local function expect(fields)
    return t:eventually(function()
      for _, e in ipairs(seen) do
        local same = true
        for word, value in pairs(fields) do
          same = same and e[word] == value
        end
        if same then
          return e
        end
      end
    end)
  end
  return expect, subscription, seen
end

test.case("link: new, change, delete, carrier", function(t)
  local a, b = pair(t)
  local expect = listen(t, "link", { netns = a })
  local v, w = link.veth({ name = "x0", netns = a, peer = { name = "x1", netns = b } })
  local e = expect({ action = "new", name = "x0" })
  t:equal({ e.kind, e.netns, e.index }, { "link", a.name, v.index })
  expect({ action = "change", name = "x0", up = true, carrier = true, operstate = "up" })
  w:down()
  expect({ action = "change", name = "x0", up = true, carrier = false })
  v:set({ mtu = 1300 })
  expect({ action = "change", name = "x0", mtu = 1300 })
  v:delete()
  expect({ action = "delete", name = "x0" })
end)

test.case("link: only the one that was asked for, by handle or name", function(t)
  local a, _, v = pair(t)
  for _, options in ipairs({ { link = v }, { link = "v0", netns = a }, { link = v, netns = a.name } }) do
    local expect, subscription, seen = listen(t, "link", options)
    local other = link.veth({ name = "y0", netns = a, peer = { netns = a } })
    other:delete()
    v:down()
    expect({ name = "v0", up = false })
    v:up()
    expect({ name = "v0", up = true })
    for _, e in ipairs(seen) do
      t:equal(e.name, "v0")
    end
    subscription:stop()
  end
end)

test.case("address, route and neigh of both families", function(t)
  local a, _, v = pair(t)
  local address = listen(t, "address", { netns = a })
  local route = listen(t, "route", { netns = a })
  local neigh = listen(t, "neigh", { netns = a })
  for _, row in ipairs({
    { "10.0.0.1/24", "10.5.0.0/16", "10.0.0.9" },
    { "fd00::1/64", "fd05::/48", "fd00::9" },
  }) do
    local cidr, dst, ip = table.unpack(row)
    v:add_address(cidr)
    address({ action = "new", address = cidr, dev = "v0", kind = "address" })
    local r = a:route({ dst = dst, via = ip, proto = "static" })
    route({ action = "new", dst = dst, via = ip, dev = "v0", proto = "static", table = 254 })
    r:delete()
    route({ action = "delete", dst = dst })
    local n = a:neigh({ dst = ip, lladdr = "02:00:00:00:00:09", dev = v })
    neigh({ action = "new", dst = ip, lladdr = "02:00:00:00:00:09", state = "permanent", dev = "v0" })
    n:delete()
    neigh({ action = "delete", dst = ip })
    v:delete_address(cidr)
    address({ action = "delete", address = cidr })
  end
end)

test.case("what others do is seen, in the order it was done", function(t)
  local a = pair(t)
  local _, _, seen = listen(t, "link", { netns = a })
  a:exec("ip link add z0 type veth peer z1; ip link set z0 mtu 1280; ip link delete z0")
  t:eventually(function()
    return #seen > 0 and seen[#seen].action == "delete" and seen[#seen].name:find("^z")
  end)
  local told = {}
  for _, e in ipairs(seen) do
    if e.name == "z0" then
      told[#told + 1] = e.action .. " " .. e.mtu
    end
  end
  t:equal(told[1], "new 1500")
  t:equal(told[#told], "delete 1280")
end)

test.case("stop ends it; an error in a handler does not", function(t)
  local a, _, v = pair(t)
  local calls = 0
  local subscription = event.on("link", { link = v }, function()
    calls = calls + 1
    if calls == 1 then
      cnf.error({ message = "expected by the test" })
    end
  end)
  t:eventually(function()
    v:set({ mtu = 1300 + calls })
    return calls >= 2
  end)
  subscription:stop()
  subscription:stop()
  task.sleep(0)
  local before = calls
  v:set({ mtu = 1200 })
  a:exec("ip link show")
  t:equal(calls, before)
  t:raises(function()
    return subscription.stopp
  end, "no field")
end)

test.case("a handler may wait; later events queue", function(t)
  local _, _, v = pair(t)
  local mtus = {}
  event.on("link", { link = v }, function(e)
    task.sleep(0.02)
    if mtus[#mtus] ~= e.mtu then
      mtus[#mtus + 1] = e.mtu
    end
  end)
  for mtu = 1301, 1310 do
    v:set({ mtu = mtu })
  end
  t:eventually(function()
    return mtus[#mtus] == 1310
  end)
  local from = mtus[1] == 1500 and 1 or 0
  for i = 1, 10 do
    t:equal(mtus[i + from], 1300 + i)
  end
end)

test.case("bad arguments", function(t)
  local a, _, v = pair(t)
  for _, row in ipairs({
    { "EINVAL", "there is no event", "links", function() end },
    { "EINVAL", "handler", "link" },
    { "EINVAL", "handler", "link", {}, "no" },
    { "EINVAL", 'did you mean "netns"', "link", { ntns = a }, function() end },
    { "ENODEV", "no link", "link", { link = "zz", netns = a }, function() end },
    { "EINVAL", "is in netns", "link", { link = v, netns = t:netns("c") }, function() end },
    { "ENOENT", "no namespace", "link", { netns = "cnf-no-such" }, function() end },
  }) do
    refused(t, row[1], row[2], event.on, table.unpack(row, 3))
  end
end)
