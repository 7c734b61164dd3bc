--- Reads JSON, for tests that ask other tools. Integers of up to 64 bits keep their bits; null reads as nil.

local json = {}

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }
local WORDS = { ["true"] = true, ["false"] = false }

local value

local function number(text)
  if text:find("[.eE]") then
    return tonumber(text)
  end
  local total = 0
  for digit in text:gmatch("%d") do
    total = total * 10 + tonumber(digit)
  end
  return text:sub(1, 1) == "-" and -total or total
end

local function text_at(source, at)
  local stop = at
  repeat
    stop = source:find('["\\]', stop + 1)
    local escaped = source:sub(stop, stop) == "\\"
    if escaped then
      stop = stop + 1
    end
  until not escaped
  local text = source:sub(at + 1, stop - 1):gsub("\\u(%x%x%x%x)", function(hex)
    return utf8.char(tonumber(hex, 16))
  end)
  text = text:gsub("\\(.)", function(c)
    return ESCAPES[c] or c
  end)
  return text, stop + 1
end

--- Items up to the closing bracket; `read` takes one and gives where it ends.
local function list(source, at, closing, read)
  at = source:find("%S", at + 1)
  while source:sub(at, at) ~= closing do
    at = source:find("%S", read(at))
    if source:sub(at, at) == "," then
      at = source:find("%S", at + 1)
    end
  end
  return at + 1
end

--- The value at a place, and the place behind it.
function value(source, at)
  at = source:find("%S", at)
  local first = source:sub(at, at)
  if first == '"' then
    return text_at(source, at)
  elseif first == "[" then
    local array = {}
    return array, list(source, at, "]", function(from)
      array[#array + 1], from = value(source, from)
      return from
    end)
  elseif first == "{" then
    local object = {}
    return object, list(source, at, "}", function(from)
      local key
      key, from = text_at(source, from)
      object[key], from = value(source, source:find(":", from, true) + 1)
      return from
    end)
  end
  local word = source:match("^[%w.+-]+", at)
  if word:find("^[%d-]") then
    return number(word), at + #word
  end
  return WORDS[word], at + #word
end

function json.decode(source)
  return (value(source, 1))
end

return json
