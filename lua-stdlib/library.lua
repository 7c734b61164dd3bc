--- `_library`: what the library's Lua modules share: arguments checked as natives check theirs, and classes that answer
--- as handles do.

local native, cnf = ...

local library = {
  check = native.check,
  keep = native.keep,
  release = native.release,
  recall = native.recall,
  remember = native.remember,
  forget = native.forget,
  loading = native.loading,
  unsay = native.unsay,
  read = native.read,
  prefixes = native.prefixes,
  clock = native.clock,
  here = native.here,
  -- The classes that were made, by name.
  classes = {},
}

local function describe(value)
  local kind = type(value)
  if kind == "nil" then
    return "nothing"
  elseif kind == "table" or kind == "function" or kind == "thread" then
    return "a " .. kind
  end
  return kind == "string" and ("%q"):format(value) or tostring(value)
end

library.describe = describe

--- Values in words, equal when they say the same: what an object of the library is told with, so that a later load of the script
--- that says the same finds it as it is.
function library.words(...)
  local function word(value)
    if type(value) ~= "table" then
      return type(value) == "string" and ("%q"):format(value) or tostring(value)
    end
    local list = {}
    for key, inner in pairs(value) do
      list[#list + 1] = word(key) .. "=" .. word(inner)
    end
    table.sort(list)
    return "{" .. table.concat(list, ",") .. "}"
  end
  local words = table.pack(...)
  for i = 1, words.n do
    words[i] = word(words[i])
  end
  return table.concat(words, " ")
end

--- A class: the metatable of its objects, to be given methods. `word` names it in operations ("task" for "task:join");
--- `fields` are the names that objects have for scripts, beside the methods.
function library.class(name, word, fields)
  local class = { __name = name }
  library.classes[name] = class

  local function members()
    local names = { table.unpack(fields or {}) }
    for key in next, class do
      if key:sub(1, 1) ~= "_" then
        names[#names + 1] = key
      end
    end
    table.sort(names)
    return names
  end

  function class:__index(key)
    local method = rawget(class, key)
    if method == nil then
      native.unknown(name, key, members())
    end
    return method
  end

  return setmetatable(class, {
    __newindex = function(_, key, method)
      if key:sub(1, 1) == "_" then
        rawset(class, key, method)
        return
      end
      local function called(self, ...)
        if getmetatable(self) ~= class then
          cnf.error({
            op = word .. ":" .. key,
            code = "EINVAL",
            message = ("is a method of a %s, called on %s"):format(name, describe(self)),
            hint = "call methods with a colon: object:method(...)",
          })
        end
        return method(self, ...)
      end
      rawset(class, key, native.standing(called))
    end,
  })
end

return library
