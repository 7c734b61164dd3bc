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

--- The classes of one stub by name: `{doc, members = {name = {name, kind, signature, doc}}, order}`.
function reference.parse(source)
  local classes, owners = {}, {}
  local doc, class = {}, nil
  for line in (source .. "\n"):gmatch("(.-)\n") do
    local text = line:match("^%-%-%-%s?(.*)$")
    local class_name = line:match("^%-%-%-@class ([%w_.]+)")
    local field, field_type = line:match("^%-%-%-@field ([%w_]+)%??%s+(.*)$")
    local owner, separator, name, parameters = line:match("^function ([%w_]+)([.:])([%w_]+)(%b())")
    local object = line:match("^local ([%w_]+) = ")
    if class_name then
      class = class_of(classes, class_name)
      class.doc = table.concat(doc, "\n")
    elseif field and class then
      add(class, { name = field, kind = "field", signature = field, doc = field_type })
    elseif text and not text:find("^@") then
      doc[#doc + 1] = text
    elseif text then
      local kept = text:match("^@(param .*)$") or text:match("^@(return .*)$")
      if kept then
        doc[#doc + 1] = "  " .. kept
      end
    elseif object and class then
      owners[object] = class
    elseif owner and owners[owner] then
      add(owners[owner], {
        name = name,
        kind = separator == ":" and "method" or "function",
        signature = owner .. separator .. name .. parameters,
        doc = table.concat(doc, "\n"),
      })
    end
    if not text then
      doc = {}
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
