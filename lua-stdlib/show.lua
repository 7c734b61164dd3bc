--- Values as a person reads them, for the prompt and for failing tests: strings quoted, tables expanded with their
--- keys sorted, handles and errors on one line. Never fails: cycles, depth, length and broken `__tostring` included.

local show = {}

local KEYWORDS = {}
for word in
  ([[and break do else elseif end false for function goto if in local nil not or repeat return then true
until while]]):gmatch("%a+")
do
  KEYWORDS[word] = true
end

local function quoted(text)
  local escaped = ("%q"):format(text):gsub("\\\n", "\\n"):gsub("\r", "\\r"):gsub("\t", "\\t")
  return (escaped:gsub("[^\x20-\x7e\x80-\xff]", function(c)
    return ("\\x%02x"):format(c:byte())
  end))
end

local function shortened(text, limit)
  if #text <= limit then
    return quoted(text)
  end
  return quoted(text:sub(1, limit)) .. (" ... (%d bytes)"):format(#text)
end

local function plain_text(value)
  local ok, text = pcall(tostring, value)
  return ok and text or ("%s (its __tostring fails)"):format(type(value))
end

--- A key as a table constructor writes it.
function show.key(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") and not KEYWORDS[key] then
    return key
  end
  return "[" .. (type(key) == "string" and quoted(key) or plain_text(key)) .. "]"
end

local RANK = { number = 1, string = 2, boolean = 3 }

--- Keys in an order that does not change from run to run where there is one.
function show.sorted_keys(value)
  local keys = {}
  for key in next, value do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b)
    local rank_a, rank_b = RANK[type(a)] or 4, RANK[type(b)] or 4
    if rank_a ~= rank_b then
      return rank_a < rank_b
    elseif rank_a <= 2 then
      return a < b
    end
    return plain_text(a) < plain_text(b)
  end)
  return keys
end

local function opaque(value)
  if type(value) ~= "table" then
    return true
  end
  local meta = debug.getmetatable(value)
  return meta and (rawget(meta, "__tostring") or rawget(meta, "__name")) and true
end

local render

local function entries(value, state, depth)
  local out, shown = {}, 0
  local function add(text)
    shown = shown + 1
    if shown <= state.items then
      out[#out + 1] = text
    end
  end
  local array = rawlen(value)
  for i = 1, array do
    if shown >= state.items then
      break
    end
    add(render(rawget(value, i), state, depth + 1))
  end
  shown = math.max(shown, array)
  for _, key in ipairs(show.sorted_keys(value)) do
    if not (math.type(key) == "integer" and key >= 1 and key <= array) then
      if shown < state.items then
        add(show.key(key) .. " = " .. render(rawget(value, key), state, depth + 1))
      else
        shown = shown + 1
      end
    end
  end
  if shown > #out then
    out[#out + 1] = ("... (%d more)"):format(shown - #out)
  end
  return out
end

function render(value, state, depth)
  if type(value) == "string" then
    return shortened(value, state.text)
  elseif opaque(value) then
    return plain_text(value)
  elseif state.path[value] then
    return "<cycle>"
  elseif next(value) == nil then
    return "{}"
  elseif depth >= state.depth then
    return "{...}"
  end
  state.path[value] = true
  local parts = entries(value, state, depth)
  state.path[value] = nil
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  if #line + 2 * depth <= state.width and not line:find("\n", 1, true) then
    return line
  end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. ",\n" .. ("  "):rep(depth) .. "}"
end

--- `value` as text. Options: depth (6 levels), width (80 columns), items (100 of one table), text (1000 bytes of one
--- string).
function show.value(value, options)
  options = options or {}
  return render(value, {
    depth = options.depth or 6,
    width = options.width or 80,
    items = options.items or 100,
    text = options.text or 1000,
    path = {},
  }, 0)
end

return show
