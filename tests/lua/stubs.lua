--- The type stubs and the live library agree: every function has its stub, every stub its function.

package.path = (debug.getinfo(1, "S").source:match("^@(.*)lua/[^/]*$") or "../") .. "lib/?.lua;" .. package.path

local cnf = require("cnf")
local test, task = cnf.test, cnf.task
local bpffs, source = require("bpffs"), require("source")

local reference = cnf._reference

--- A program that does nothing.
local function loaded()
  return source.compile([[
MAP(cells, ARRAY, 1, __u32, __u32);
SEC("xdp") int frames(struct xdp_md *ctx) { return XDP_PASS; }
SEC("tc") int pass(struct __sk_buff *skb) {
  __u32 zero = 0;
  return bpf_map_lookup_elem(&cells, &zero) ? -1 : 0;
}]])
end

--- A link whose other end is in its namespace too: in the host's its name might be taken.
local function pair(t)
  local ns = t:netns("stubs")
  return (cnf.link.veth({ name = "stub", netns = ns, peer = { name = "stub2", netns = ns } }))
end

--- Makes an object of each handle type whose stub is compared too: add yours with its stub.
local instances = {
  ["cnf.Task"] = function()
    return task.spawn(function() end)
  end,
  ["cnf.Channel"] = function()
    return task.channel(1)
  end,
  ["cnf.Case"] = function(t)
    return t
  end,
  ["cnf.Object"] = loaded,
  ["cnf.Program"] = function()
    return loaded().programs.pass
  end,
  ["cnf.Map"] = function()
    return loaded().maps.cells
  end,
  ["cnf.Attachment"] = function(t)
    local link = pair(t)
    return cnf.bpf.attach(link, "ingress", loaded().programs.pass)
  end,
  ["cnf.BpfLink"] = function(t)
    local mount = bpffs(t)
    local link = pair(t)
    cnf._test.pin_xdp(link, loaded().programs.frames, mount .. "/link")
    return cnf.bpf.pinned(mount .. "/link", "link")
  end,
  ["cnf.BeyondAttachment"] = function(t)
    local o = source.compile('SEC("sk_lookup") int pass(struct bpf_sk_lookup *ctx) { return SK_PASS; }')
    return cnf.bpf.attach_sk_lookup(t:netns("stub"), o.programs.pass)
  end,
  ["cnf.Netns"] = function(t)
    return t:netns("stub")
  end,
  ["cnf.Link"] = function(t)
    return t:netns("stub"):link("lo")
  end,
  ["cnf.Route"] = function(t)
    return t:netns("stub"):route({ dst = "10.0.0.0/8", dev = "lo" })
  end,
  ["cnf.Rule"] = function(t)
    return t:netns("stub"):rule({ from = "10.0.0.0/8", table = 100 })
  end,
  ["cnf.Neigh"] = function(t)
    local ns = t:netns("stub")
    cnf.link.veth({ name = "a", netns = ns, peer = { name = "b", netns = ns } })
    return ns:neigh({ dst = "10.0.0.2", lladdr = "02:00:00:00:00:02", dev = "a" })
  end,
  ["cnf.Process"] = function(t)
    return t:netns("stub"):spawn({ "cat" })
  end,
  ["cnf.Server"] = function(t)
    return cnf.probe.serve(t:netns("stub"), { tcp = 0 })
  end,
  ["cnf.Router"] = function(t)
    local link = pair(t)
    return cnf.policy.router({ attach = { { link, "ingress" } } })
  end,
  ["cnf.Service"] = function(t)
    local link = pair(t)
    return cnf.lb.service({ name = "stub", vip = "192.0.2.1:80", attach = { link } })
  end,
  ["cnf.Mirror"] = function(t)
    local ns = t:netns("stubs")
    local from, to = cnf.link.veth({ name = "stub", netns = ns, peer = { name = "stub2", netns = ns } })
    return cnf.mirror.to({ from = from, to = to })
  end,
  ["cnf.RecordSubscription"] = function()
    return cnf.bpf.trace(function() end)
  end,
  ["cnf.Fault"] = function(t)
    local link = pair(t)
    return cnf.chaos.inject(link, { loss = 0 })
  end,
  ["cnf.Filter"] = function(t)
    local link = pair(t)
    return cnf.filter.xdp({ link = link })
  end,
  ["cnf.Forward"] = function(t)
    local link = pair(t)
    return cnf.forward.xdp({ links = { link } })
  end,
  ["cnf.Limit"] = function(t)
    local link = pair(t)
    return cnf.police.limit({ link = link, pps = 1 })
  end,
  ["cnf.Flows"] = function(t)
    local link = pair(t)
    return cnf.flow.account({ link = link })
  end,
  ["cnf.Subscription"] = function(t)
    return cnf.event.on("link", { netns = t:netns("stub") }, function() end)
  end,
}

local function public(value)
  local names = {}
  for key in next, value do
    if type(key) == "string" and key:sub(1, 1) ~= "_" then
      names[key] = true
    end
  end
  return names
end

local function missing(from, other)
  local names = {}
  for name in pairs(from) do
    if not other[name] then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

--- Fails with the names that only one side has.
local function agree(t, live, members)
  t:equal(missing(live, members), {}, "live, and not in the stub")
  t:equal(missing(members, live), {}, "in the stub, and not live")
end

--- Whether a class is the shape of a plain table: options, results.
local function plain(class)
  for _, member in pairs(class.members) do
    if member.kind ~= "field" then
      return false
    end
  end
  return true
end

for module in next, cnf._stubs do
  for class_name, class in pairs(reference.parse(cnf._stubs[module])) do
    if plain(class) and not reference.live(class_name) then
      goto continue
    end
    test.case("stub of " .. class_name, function(t)
      local live = reference.live(class_name)
      if live then
        local names = public(live)
        if live == cnf then
          -- Modules become fields when they are first used.
          for name in pairs(package.preload) do
            names[name:match("^cnf%.(.+)$") or ""] = nil
          end
          for name in pairs(cnf._stubs) do
            names[name] = true
          end
          names.cnf = nil
          -- So does what survives a reload.
          names.state = cnf.state ~= nil
        end
        agree(t, names, class.members)
      elseif instances[class_name] then
        local object = instances[class_name](t)
        for name, member in pairs(class.members) do
          local found = object[name]
          t:ok(found ~= nil, member.signature .. " is in the stub, and not live")
          if member.kind == "method" then
            t:equal(type(found), "function", member.signature)
          end
        end
        local methods = {}
        local meta = debug.getmetatable(object)
        for _, name in ipairs(rawget(meta, "__members") or {}) do
          methods[name] = true
        end
        if type(object) == "table" then
          methods = public(meta)
        end
        t:equal(missing(methods, class.members), {}, "live, and not in the stub")
      else
        t:skip("no instance of a handle type is made in tests/lua/stubs.lua")
      end
    end)
    ::continue::
  end
end

test.case("every public module has a stub", function(t)
  local without = {}
  for name in pairs(package.preload) do
    local module = name:match("^cnf%.(.+)$")
    if module and not rawget(cnf._stubs, module) then
      without[#without + 1] = module
    end
  end
  t:equal(without, {})
end)

test.case("every function and method is documented", function(t)
  local silent = {}
  for _, class in pairs(reference.all()) do
    for _, member in pairs(class.members) do
      if member.kind ~= "field" and member.doc == "" then
        silent[#silent + 1] = member.signature
      end
    end
  end
  t:equal(silent, {})
end)

--- What not every kernel gives.
local NEEDS = {
  ["link.vlan"] = { "vlan" },
  ["link.vxlan"] = { "vxlan" },
  ["mirror.to"] = { "dummy" },
  ["netkit.pair"] = { "netkit" },
}

--- The examples of the reference: `{name, source}`.
local function examples()
  local found = {}
  for _, entry in ipairs(reference.entries()) do
    for source in (entry.member and entry.member.doc or ""):gmatch("```lua\n(.-)\n```") do
      found[#found + 1] = { name = entry.name, source = source }
    end
  end
  return found
end

--- What examples take for granted: two namespaces with a pair of links between them, `eth0` at 10.0.0.1 and `eth1` at 10.0.0.2.
local function surroundings(t, name)
  local around = { client = t:netns("client"), server = t:netns("server") }
  if name ~= "link.veth" then
    around.eth0, around.eth1 = cnf.link.veth({
      name = "eth0",
      netns = around.client,
      address = "10.0.0.1/24",
      peer = { name = "eth1", netns = around.server, address = "10.0.0.2/24" },
    })
  end
  around.print = function() end
  -- Names of its own for what examples make in the host.
  around.netns = setmetatable({
    new = function()
      return t:netns("made")
    end,
  }, { __index = cnf.netns })
  around.test = { case = function() end }
  around.cnf = cnf
  return setmetatable(around, {
    __index = function(_, word)
      if package.preload["cnf." .. word] then
        return cnf[word]
      end
      return _G[word]
    end,
  })
end

for _, example in ipairs(examples()) do
  test.case("the example of " .. example.name .. " runs", function(t)
    t:requires(table.unpack(NEEDS[example.name] or {}))
    local run = assert(load(example.source, "@example", "t", surroundings(t, example.name)))
    if example.name == "cnf.error" then
      t:raises(run, "setup%(edge%): no uplink")
    else
      run()
    end
  end)
end
