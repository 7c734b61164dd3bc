--- The prompt's own Lua: completion and results; and who hears what the lines of an attached prompt print.

local native, cnf = ...

local show, help = cnf._show, cnf._help

local prompt = {}

local KEYWORDS = [[and break do else elseif end false for function goto if in local nil not or repeat return then true
until while]]

-- Completion -------------------------------------------------------------------------------------------------------

--- A field without running what a script put behind `__index`.
local function field(value, key)
  if type(value) == "string" then
    return string[key]
  end
  local ok, found = pcall(function()
    return value[key]
  end)
  return ok and found or nil
end

local function add_keys(names, from, hidden)
  for key in next, from do
    if type(key) == "string" and key:find("^[%a_][%w_]*$") and not key:find(hidden) then
      names[key] = true
    end
  end
end

local function members(value)
  local names = {}
  if type(value) == "string" then
    add_keys(names, string, "^_")
    return names
  end
  local meta = debug.getmetatable(value)
  if type(value) == "table" then
    add_keys(names, value, "^_")
  end
  if value == cnf then
    for module in next, package.preload do
      names[module:match("^cnf%.([%w_]+)$") or ""] = true
    end
    names[""] = nil
  end
  if meta then
    for _, name in ipairs(rawget(meta, "__members") or {}) do
      names[name] = true
    end
    if type(rawget(meta, "__index")) == "table" then
      add_keys(names, rawget(meta, "__index"), "^_")
    elseif rawget(meta, "__name") and type(value) == "table" then
      add_keys(names, meta, "^_")
    end
  end
  return names
end

local function top_level(environment)
  local names = {}
  add_keys(names, environment, "^__")
  add_keys(names, _G, "^_")
  for word in KEYWORDS:gmatch("%a+") do
    names[word] = true
  end
  for module in next, package.preload do
    local name = module:match("^cnf%.([%w_]+)$")
    if name then
      names[name] = true
    end
  end
  names.cnf = true
  return names
end

--- What could stand at the end of `line`: where the word starts (bytes before it), and the words.
function prompt.complete(environment, line)
  local chain = line:match("[%w_.:]*$")
  local base, separator, word = chain:match("^(.*)([.:])([%w_]*)$")
  local names
  if not base then
    word, names = chain, top_level(environment)
    if word == "" then
      return #line, {}
    end
  else
    local value = environment
    for part in base:gmatch("[%w_]+") do
      value = field(value, part)
      if value == nil then
        return #line, {}
      end
    end
    names = members(value)
    if separator == ":" then
      for name in pairs(names) do
        if type(field(value, name)) ~= "function" then
          names[name] = nil
        end
      end
    end
  end
  local found = {}
  for name in pairs(names) do
    if name:sub(1, #word) == word then
      found[#found + 1] = name
    end
  end
  table.sort(found)
  return #line - #word, found
end

-- Results ----------------------------------------------------------------------------------------------------------

--- The text of a line's results; nil when there are none. The first becomes `_`.
function prompt.results(environment, width, ...)
  local count = select("#", ...)
  if count == 0 then
    return nil
  end
  if count == 1 and rawequal((...), rawget(environment, "help")) then
    -- `help` alone is a question, too.
    rawget(environment, "help")()
    return nil
  end
  rawset(environment, "_", (...))
  local parts = {}
  for i = 1, count do
    parts[i] = show.value((select(i, ...)), { width = width })
  end
  return table.concat(parts, "\t")
end

-- help -------------------------------------------------------------------------------------------------------------

local LEAVING = "tears down and leaves"
local DETACHING = [[detaches: the instance goes on, and
what lines have made is its own. :reload loads its script again; what lines have in variables goes with the load before]]

--- What `help(...)` prints where a chunk is run.
function prompt.help(...)
  return help.text(LEAVING, ...)
end

-- What lines print -------------------------------------------------------------------------------------------------

local function line_of(...)
  local parts = {}
  for i = 1, select("#", ...) do
    parts[i] = tostring((select(i, ...)))
  end
  return table.concat(parts, "\t") .. "\n"
end

--- Makes `print` and `help` of the prompt: `write` puts text above the line that is being edited.
function prompt.install(environment, write)
  local function print_line(...)
    write(line_of(...))
  end
  -- Functions of modules print too, while tasks of theirs run.
  rawset(_G, "print", print_line)
  rawset(environment, "help", function(...)
    print_line(prompt.help(...))
  end)
end

--- Whether an attached prompt, whose line or task this is, has heard it. Where nothing can wait and there is no room, it
--- has not.
local function heard(text)
  local now = native.say(text)
  if now == false and coroutine.isyieldable() then
    return native.say_waiting(text)
  end
  return now
end

--- From the first attached prompt on, what a line and its tasks print goes to it, and all else where it went.
local function listen()
  local own_print, own_write = print, io.write
  rawset(_G, "print", function(...)
    if not (native.is_heard() and heard(line_of(...))) then
      own_print(...)
    end
  end)
  local file = getmetatable(io.stdout).__index
  local file_write = file.write
  function file.write(this, ...)
    if this == io.stdout and native.is_heard() and heard(table.concat({ ... })) then
      return this
    end
    return file_write(this, ...)
  end
  function io.write(...)
    if io.output() == io.stdout then
      return io.stdout:write(...)
    end
    return own_write(...)
  end
end

local listening = false

--- Makes the environment that of an attached prompt.
function prompt.attach(environment)
  if not listening then
    listening = true
    listen()
  end
  rawset(environment, "help", function(...)
    print(help.text(DETACHING, ...))
  end)
end

return prompt
