--- `cnf.state`: the one table that a reload keeps. It looks like a table of tables and holds copies of plain data.

local native, cnf = ...
local type, next, rawequal, setmetatable, math_type = type, next, rawequal, setmetatable, math.type

--- What all of it may take, in bytes as counted by `size`.
local LIMIT = 16 << 20

local root = native.root()
-- The faces of its tables, and the tables behind the faces.
local faces = setmetatable({}, { __mode = "kv" })
local behind = setmetatable({}, { __mode = "k" })
local used = 0

local function fail(code, message, hint)
  cnf.error({ op = "cnf.state", code = code, message = message, hint = hint })
end

--- A copy of a value, if it is plain data.
local function plain(value, path, above)
  local kind = type(value)
  if kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" then
    return value
  end
  if kind ~= "table" then
    fail(
      "EINVAL",
      ("%s is a %s, which cannot outlive its script"):format(path, kind == "userdata" and tostring(value) or kind),
      "keep plain data: names and numbers from which the next load finds its objects again"
    )
  end
  value = behind[value] or value
  for _, one in ipairs(above) do
    if rawequal(one, value) then
      fail("EINVAL", path .. " contains itself", "keep data without circles")
    end
  end
  above[#above + 1] = value
  local copy = {}
  for key, inner in next, value do
    local key_kind = type(key)
    if key_kind ~= "string" and key_kind ~= "boolean" and math_type(key) == nil then
      fail("EINVAL", ("%s has a %s as key"):format(path, key_kind), "keys are strings, numbers or booleans")
    end
    copy[key] = plain(inner, ("%s.%s"):format(path, tostring(key)), above)
  end
  above[#above] = nil
  return copy
end

local function size(value)
  local kind = type(value)
  if kind == "string" then
    return #value + 16
  elseif kind ~= "table" then
    return 16
  end
  local total = 64
  for key, inner in next, value do
    total = total + size(key) + size(inner)
  end
  return total
end

local face

local function look(value)
  return type(value) == "table" and face(value) or value
end

function face(of)
  local known = faces[of]
  if known then
    return known
  end
  local new = setmetatable({}, {
    __name = "cnf.state",
    __index = function(_, key)
      return look(of[key])
    end,
    __newindex = function(_, key, value)
      if type(key) ~= "string" and type(key) ~= "boolean" and math_type(key) == nil then
        fail("EINVAL", ("a %s cannot be a key"):format(type(key)), "keys are strings, numbers or booleans")
      end
      local copy = plain(value, tostring(key), {})
      local more = (copy == nil and 0 or size(copy) + size(key)) - (of[key] == nil and 0 or size(of[key]) + size(key))
      if used + more > LIMIT then
        fail(
          "ENOSPC",
          ("%s would make it larger than %d MiB"):format(tostring(key), LIMIT >> 20),
          "what is large belongs into a map or a file"
        )
      end
      used = used + more
      of[key] = copy
    end,
    __len = function()
      return #of
    end,
    __pairs = function()
      return function(_, key)
        local found, value = next(of, key)
        return found, look(value)
      end
    end,
    __eq = function(a, b)
      return rawequal(behind[a] or a, behind[b] or b)
    end,
  })
  faces[of], behind[new] = new, of
  return new
end

used = size(root)
return face(root)
