--- `help(x)`: what the reference says of a value or a name, with its signature, its options and its example; of a name that it
--- does not know, which ones are near.

local native, cnf = ...

local show, reference, library = cnf._show, cnf._reference, cnf._library

local help = {}

local OVERVIEW = [[
An expression prints its value; a statement runs. _ is the last result. What waits can be typed as it is.
Variables made without `local` stay: `local` ends with its line.
Tab completes; Ctrl-C clears the line or interrupts what runs; Ctrl-D or :quit %s.

help(x) tells about
  a module                  help(link), help "link"
  a function of it          help(link.veth), help "link.veth"
  an object and its type    help(ns), help "Netns"
  a method                  help(ns.route), help "Netns:route", help "route"
  a table of options        help "ServiceOptions"

Modules: ]]

local WIDTH, INDENT = 100, 36

-- Text -------------------------------------------------------------------------------------------------------------

--- Up to the first full stop: one that a number or a name has inside is none.
local function first_sentence(text)
  text = text:gsub("%s+", " ")
  return (text .. " "):match("^(.-[.])%s") or text
end

--- `text` in lines of the terminal's width, all but the first behind `indent` blanks.
local function folded(text, indent)
  local lines, line = {}, ""
  for word in text:gmatch("%S+") do
    if #line > 0 and indent + #line + #word >= WIDTH then
      lines[#lines + 1], line = line, word
    else
      line = #line > 0 and line .. " " .. word or word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. (" "):rep(indent))
end

--- A row of a list: a face, and behind its column what it is.
local function row(face, text)
  face = "  " .. face
  if #face >= INDENT and text ~= "" then
    return face .. "\n" .. (" "):rep(INDENT) .. folded(text, INDENT)
  end
  return ((face .. (" "):rep(INDENT - #face) .. folded(text, INDENT)):gsub("%s+$", ""))
end

--- Documentation as it was written, examples set off.
local function paragraphs(doc)
  local lines, example = {}, false
  for line in (doc .. "\n"):gmatch("(.-)\n") do
    if line:find("^```") then
      example = not example
      lines[#lines + 1] = example and "Example:" or nil
    else
      lines[#lines + 1] = example and "  " .. line or line
    end
  end
  return table.concat(lines, "\n")
end

--- Without its examples.
local function prose(doc)
  return (doc:gsub("```%w*\n.-\n```", ""))
end

-- Types ------------------------------------------------------------------------------------------------------------

local function unqualified(kind)
  return (kind:gsub("%f[%w]cnf%.(%u)", "%1"))
end

--- The members of `{a: x, b?: {...}}`, as they are written; nil for another type.
local function members_of(kind)
  local inside = kind:match("^{(.*)}$")
  if not inside or inside:find("^%[") then
    return nil
  end
  local list, depth, from = {}, 0, 1
  for at = 1, #inside + 1 do
    local c = inside:sub(at, at)
    if c:find("[{(<]") then
      depth = depth + 1
    elseif c:find("[})>]") then
      depth = depth - 1
    elseif (c == "," and depth == 0) or at == #inside + 1 then
      list[#list + 1] = inside:sub(from, at - 1):match("^%s*(.-)%s*$")
      from = at + 1
    end
  end
  return list
end

--- The class that an options parameter is of.
local function options_class(kind)
  return reference.all()[kind:match("^cnf%.%u%w*$") and kind or ""]
end

--- What a class's list says of a member: its face, and a sentence.
local function summary(member)
  if member.kind ~= "field" then
    return member.signature, first_sentence(prose(member.doc))
  end
  local class = reference.all()[member.type]
  if member.doc == "" and class and reference.live(class.name) then
    return member.name, first_sentence(class.doc)
  end
  local face = ("%s%s: %s"):format(member.name, member.optional and "?" or "", unqualified(member.type))
  return face, first_sentence(member.doc)
end

--- Those of the class that it extends come last.
local function rows(class)
  local lines = {}
  for _, name in ipairs(class.order) do
    lines[#lines + 1] = row(summary(class.members[name]))
  end
  local parent = class.parent and reference.all()[class.parent]
  if parent then
    lines[#lines + 1] = table.concat(rows(parent), "\n")
  end
  return lines
end

local function about_class(class)
  local lines = { class.name }
  if class.doc ~= "" then
    lines[#lines + 1] = paragraphs(class.doc)
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = table.concat(rows(class), "\n")
  return table.concat(lines, "\n")
end

local function about_param(lines, param)
  local face = ("%s%s: "):format(param.name, param.optional and "?" or "")
  local members, class = members_of(param.type), options_class(param.type)
  if members and #members > 0 then
    lines[#lines + 1] = row(face .. "a table of", param.text)
    for _, member in ipairs(members) do
      lines[#lines + 1] = "    " .. folded(unqualified(member), 6)
    end
  else
    lines[#lines + 1] = row(face .. unqualified(param.type), param.text)
    if class and class.name:find("Options$") then
      lines[#lines + 1] = "  " .. table.concat(rows(class), "\n"):gsub("\n", "\n  ")
    end
  end
end

local function about_field(class, member)
  local face = ("%s.%s%s: %s"):format(
    unqualified(class.name),
    member.name,
    member.optional and "?" or "",
    unqualified(member.type)
  )
  return face .. "\n\n" .. folded(member.doc, 0)
end

local function about_member(class, member)
  if member.kind == "field" then
    return about_field(class, member)
  end
  local returns = {}
  for _, value in ipairs(member.returns) do
    returns[#returns + 1] = unqualified(value)
  end
  local lines = { member.signature, "", paragraphs(member.doc) }
  if #member.params + #returns > 0 then
    lines[#lines + 1] = ""
  end
  for _, param in ipairs(member.params) do
    about_param(lines, param)
  end
  if #returns > 0 then
    lines[#lines + 1] = "  returns " .. folded(table.concat(returns, ", "), 4)
  end
  return table.concat(lines, "\n")
end

local function about(entry)
  if entry.member then
    return about_member(entry.class, entry.member)
  end
  return about_class(entry.class)
end

-- Names ------------------------------------------------------------------------------------------------------------

--- The entries for which `is` is true; nil when there is none.
local function where(is)
  local found = {}
  for _, entry in ipairs(reference.entries()) do
    if is(entry.name) then
      found[#found + 1] = entry
    end
  end
  return found[1] and found
end

local function last_part(name)
  return name:match("[^.]+$") or name
end

--- The entries that a name means: as it is written, or else whatever its case, or by its last part.
local function named(name)
  local function exactly(known)
    return known == name
  end
  local function loosely(known)
    return known:lower() == name:lower()
  end
  local function ending(known)
    return known:find(".", 1, true) and last_part(known) == last_part(name)
  end
  if name:find(".", 1, true) then
    return where(exactly) or where(loosely) or where(ending)
  end
  return where(exactly) or where(function(known)
    return loosely(known) or ending(known)
  end)
end

local function several(name, found)
  local lines = { ("%q is the name of several:"):format(name) }
  for _, entry in ipairs(found) do
    local face, text = entry.name, ""
    if entry.member then
      face, text = summary(entry.member)
      face = entry.member.kind == "field" and entry.name or face
    end
    lines[#lines + 1] = row(face, text)
  end
  return table.concat(lines, "\n")
end

--- What is answered for a name that nothing has.
local function unknown(name)
  local names, last = {}, {}
  for _, entry in ipairs(reference.entries()) do
    names[#names + 1] = entry.name
    last[#last + 1] = last_part(entry.name)
  end
  local near = native.nearest(name, names) or native.nearest(last_part(name), last)
  local hint = near and ("did you mean %q?"):format(near) or "help() says what can be asked"
  return ("nothing is called %q; %s"):format(name, hint)
end

local function by_name(text)
  local name = text:gsub("^%s+", ""):gsub("%s*%b()%s*$", ""):gsub("%s+$", ""):gsub(":", ".")
  local found = where(function(known)
    return known == name
  end) or named((name:gsub("^cnf%.", "")))
  if not found then
    return unknown(text)
  elseif #found > 1 then
    return several(name, found)
  end
  return about(found[1])
end

-- Values -----------------------------------------------------------------------------------------------------------

--- Whether the handle, which may be of a generation that has ended, has this value for a method.
local function has_method(handle, name, value)
  local ok, found = pcall(function()
    return handle[name]
  end)
  return ok and rawequal(found, value)
end

--- The class and the name of a method: of the library's classes, or of the natives' handles that there are.
local function method_name(value)
  for name, class in pairs(library.classes) do
    for key, method in next, class do
      if rawequal(method, value) and key:sub(1, 1) ~= "_" then
        return name .. "." .. key
      end
    end
  end
  for _, handle in ipairs(native.handles()) do
    local meta = debug.getmetatable(handle)
    for _, key in ipairs(rawget(meta, "__members")) do
      if has_method(handle, key, value) then
        return rawget(meta, "__name") .. "." .. key
      end
    end
  end
end

--- "string.format" and its like.
local function of_lua(value)
  for name, own in pairs({ _G = _G, string = string, table = table, math = math, io = io, os = os, utf8 = utf8, debug = debug }) do
    for key, function_ in next, own do
      if rawequal(function_, value) then
        return name == "_G" and key or name .. "." .. key
      end
    end
  end
end

local function type_name(value)
  local meta = debug.getmetatable(value)
  return meta and type(rawget(meta, "__name")) == "string" and rawget(meta, "__name")
end

local function by_value(value)
  for _, entry in ipairs(reference.entries()) do
    local live = reference.live(entry.class.name)
    if live and not entry.member and rawequal(live, value) then
      return about(entry)
    elseif live and entry.member and type(value) == "function" and rawequal(rawget(live, entry.member.name), value) then
      return about(entry)
    end
  end
  local name = type(value) == "function" and method_name(value) or nil
  name = name or (type(value) ~= "function" and type_name(value)) or nil
  local found = name and named(name)
  if found then
    return about(found[1])
  end
  local own = of_lua(value)
  if own then
    return ("%s is Lua's own: https://www.lua.org/manual/5.4/manual.html#6"):format(own)
  end
  return ("nothing is written about %s; help() says what can be asked"):format(show.value(value, { depth = 1 }))
end

--- What `help(...)` prints. `leaving` is what Ctrl-D does.
function help.text(leaving, ...)
  if select("#", ...) == 0 then
    local modules = {}
    for module in next, package.preload do
      modules[#modules + 1] = module:match("^cnf%.(.*)$")
    end
    table.sort(modules)
    return OVERVIEW:format(leaving) .. folded(table.concat(modules, ", "), 9)
  end
  local value = (...)
  if type(value) == "string" then
    return by_name(value)
  elseif value == nil then
    return "that is nil: no variable of this name, or one without a value; help() says what can be asked"
  end
  return by_value(value)
end

return help
