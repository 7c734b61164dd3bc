--- The reference, read out of the type stubs, which are its single source: for `help`, for completion, and for the test
--- that holds stubs and live modules against each other.

local _, cnf = ...

local reference = {}

local function class_of(classes, name)
  classes[name] = classes[name] or { name = name, doc = "", members = {}, order = {} }
  return classes[name]
end

local function add(class, member)
  if not class.members[member.name] then
    class.order[#class.order + 1] = member.name
  end
  class.members[member.name] = member
end

-- What a type is made of, one after the other.
local TYPE_PARTS = { "^%b{}", "^fun%b()", "^%b()", "^[^%s{(|<]+%b<>", "^[^%s{(|]+", "^|", "^: " }

--- A type in front, which may have spaces within its brackets, and what stands behind it.
function reference.type_and_text(line)
  local at, found = 1, true
  while found do
    found = false
    for _, part in ipairs(TYPE_PARTS) do
      local _, to = line:find(part, at)
      if to then
        at, found = to + 1, true
        break
      end
    end
  end
  return line:sub(1, at - 1), (line:sub(at):gsub("^%s+", ""))
end

--- `name? type what it is`, of a parameter or a field.
local function name_type_text(line)
  local name, optional, rest = line:match("^([%w_.]+)(%??)%s+(.*)$")
  if name then
    local kind, text = reference.type_and_text(rest)
    return { name = name, optional = optional == "?", type = kind, text = text }
  end
end

--- The classes of one stub by name: `{doc, parent, members = {name = member}, order}`. A member has `name`, `kind` ("field", "function",
--- "method"), `signature` and `doc`, a field its `type`, the others `params` and `returns`.
function reference.parse(source)
  local classes, owners = {}, {}
  local doc, params, returns, class, last = {}, {}, {}, nil, nil
  for line in (source .. "\n"):gmatch("(.-)\n") do
    local text = line:match("^%-%-%-%s?(.*)$")
    local class_name, parent = line:match("^%-%-%-@class ([%w_.]+):?%s*([%w_.]*)")
    local field = text and text:match("^@field (.*)$")
    local owner, separator, name, parameters = line:match("^function ([%w_]+)([.:])([%w_]+)(%b())")
    local object = line:match("^local ([%w_]+) = ")
    if class_name then
      class, last = class_of(classes, class_name), nil
      class.doc = table.concat(doc, "\n")
      class.parent = parent ~= "" and parent or nil
    elseif field and class then
      local read = name_type_text(field)
      last = {
        name = read.name,
        kind = "field",
        signature = read.name,
        optional = read.optional,
        type = read.type,
        doc = read.text,
      }
      add(class, last)
    elseif text and not text:find("^@") then
      if last then
        -- What is said of a field goes on.
        last.doc = last.doc .. " " .. text
      else
        doc[#doc + 1] = text
      end
    elseif text then
      local param = text:match("^@param%s+(.*)$")
      params[#params + 1] = param and name_type_text(param)
      returns[#returns + 1] = text:match("^@return%s+(.*)$")
    elseif object and class then
      owners[object] = class
    elseif owner and owners[owner] then
      add(owners[owner], {
        name = name,
        kind = separator == ":" and "method" or "function",
        signature = owner .. separator .. name .. parameters,
        doc = table.concat(doc, "\n"),
        params = params,
        returns = returns,
      })
    end
    if not text then
      doc, params, returns, last = {}, {}, {}, nil
      class = object and class or nil
    end
  end
  return classes
end

local parsed

--- The classes of all stubs.
function reference.all()
  if not parsed then
    parsed = {}
    for name in next, cnf._stubs do
      for class_name, class in next, reference.parse(cnf._stubs[name]) do
        parsed[class_name] = class
      end
    end
  end
  return parsed
end

local entries

--- All that has a name: classes, and members by class, as `{name, class, member}`. A name is what a script writes, without
--- "cnf." before it and with a dot where it writes a colon: "link.veth", "Netns.route", "Backend.weight".
function reference.entries()
  if not entries then
    entries = {}
    for _, class in pairs(reference.all()) do
      local short = class.name:gsub("^cnf%.", "")
      entries[#entries + 1] = { name = short, class = class }
      for _, member in pairs(class.members) do
        -- A module is a class of its own.
        if not (class.name == "cnf" and reference.all()["cnf." .. member.name]) then
          entries[#entries + 1] = { name = short .. "." .. member.name, class = class, member = member }
        end
      end
    end
    table.sort(entries, function(a, b)
      return a.name < b.name
    end)
  end
  return entries
end

--- The live table that a class of the stubs describes: `cnf`, or what `cnf.a.b` names; nil for types of handles.
function reference.live(class_name)
  if not class_name:find("^cnf") or class_name:find("%f[%w]%u") then
    return nil
  end
  local value = cnf
  for part in class_name:gmatch("%.([%w_]+)") do
    value = value[part]
  end
  return value
end

return reference
