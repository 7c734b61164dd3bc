--- Runs first in every VM, before any script. It replaces what plain Lua cannot do in a program whose natives wait:
--- `require` and coroutines that yield across, `pcall` that does not swallow the end of memory; it makes globals and
--- modules strict. Returns the function under which every chunk
--- runs, and the one that makes an environment for a prompt.

local host = ...
local raw_pcall, raw_xpcall, raw_resume = pcall, xpcall, coroutine.resume
local running, yield, status = coroutine.running, coroutine.yield, coroutine.status
local type, select, error, rawget, setmetatable = type, select, error, rawget, setmetatable
local pending, enter, interrupting = host.pending, host.enter, host.interrupting
local standing, getinfo = host.standing, debug.getinfo

-- Errors answer to .code, .hint and the rest.
host.dress(debug.getmetatable(host.an_error))

-- pcall and xpcall -----------------------------------------------------------------------------------------------

-- While the script is being stopped, no pcall swallows it.
local function after(ok, ...)
  if not ok and host.failed((...)) then
    error(host.interrupted(), 0)
  end
  return ok, ...
end

function pcall(fn, ...)
  return after(raw_pcall(fn, ...))
end

function xpcall(fn, handler, ...)
  return after(raw_xpcall(fn, handler, ...))
end

-- Coroutines -----------------------------------------------------------------------------------------------------
-- A native that waits inside a coroutine yields the pending marker: it is passed on to whoever drives the outermost
-- coroutine, and the script never sees it.

local function resumed(me, co, ok, first, ...)
  enter(me)
  if interrupting() then
    error(host.interrupted(), 0)
  end
  if ok and first == pending and status(co) == "suspended" then
    yield(pending)
    enter(co)
    return resumed(me, co, raw_resume(co))
  end
  return ok, first, ...
end

function coroutine.resume(co, ...)
  if type(co) ~= "thread" then
    return raw_resume(co, ...)
  end
  enter(co)
  return resumed(running(), co, raw_resume(co, ...))
end

local function unwrapped(ok, ...)
  if not ok then
    error((...), 0)
  end
  return ...
end

function coroutine.wrap(fn)
  local co = coroutine.create(fn)
  return function(...)
    return unwrapped(coroutine.resume(co, ...))
  end
end

-- Modules --------------------------------------------------------------------------------------------------------

local function strict(name, module)
  return setmetatable(module, {
    __index = function(_, key)
      local names = {}
      for known in pairs(module) do
        names[#names + 1] = tostring(known)
      end
      table.sort(names)
      host.unknown(name .. " has no field", key, names)
    end,
  })
end

--- Builds a module from its native half, its Lua half, or both: the Lua half receives the native one.
local function build(name)
  local native = host.modules[name] and host.modules[name]()
  local source = host.library[name]
  if not source then
    return native and strict(name, native)
  end
  local chunk = assert(load(source, "=[cnf]", "t"))
  local module = chunk(native, package.loaded.cnf)
  -- A script's tail call leaves its frame there, so that errors name its line.
  if name:sub(1, 1) ~= "_" then
    for key, value in pairs(module) do
      if type(value) == "function" and getinfo(value, "S").what ~= "C" then
        module[key] = standing(value)
      end
    end
  end
  return strict(name, module)
end

local names = {}
for _, set in ipairs({ host.modules, host.library }) do
  for name in pairs(set) do
    -- One that has halves in both is one.
    local counted = set == host.library and host.modules[name]
    if name ~= "cnf" and name:sub(1, 1) ~= "_" and not counted then
      names[#names + 1] = name
    end
  end
end
table.sort(names)

local cnf = host.modules.cnf()
strict("cnf.log", cnf.log)

function cnf.probe_feature(name)
  local probed = cnf.bpf.has(name)
  return probed.available, probed.reason
end

-- A table of its own making: not a module.
local function state()
  local chunk = assert(load(host.library._state, "=[cnf]", "t"))
  local made = chunk(host.modules._state(), package.loaded.cnf)
  rawset(cnf, "state", made)
  return made
end

package.loaded["cnf"] = setmetatable(cnf, {
  __index = function(_, key)
    if key == "state" then
      return state()
    end
    if host.modules[key] or host.library[key] then
      local module = package.loaded["cnf." .. key] or build(key)
      package.loaded["cnf." .. key] = module
      if key:sub(1, 1) ~= "_" then
        rawset(cnf, key, module)
      end
      return module
    end
    local known = { table.unpack(names) }
    for name in pairs(cnf) do
      known[#known + 1] = name
    end
    host.unknown("cnf has no module or field", key, known)
  end,
  __newindex = function(_, key)
    host.unknown("cnf cannot be given a field", key, {})
  end,
})
for _, name in ipairs(names) do
  package.preload["cnf." .. name] = function()
    return cnf[name]
  end
end

-- Lua's own searcher of files, but errors of its chunks are errors like those of scripts.
package.searchers[2] = function(name)
  local path, tried = package.searchpath(name, package.path)
  if not path then
    return tried
  end
  return host.compile(path), path
end

local function not_found(name, tried)
  local hint = "package.path says where modules are looked for"
  if host.modules[name] or host.library[name] then
    hint = ('the library\'s module is require "cnf.%s"'):format(name)
  elseif name:find("^cnf%.") then
    local near = host.nearest(name:sub(5), names)
    hint = near and ('did you mean "cnf.%s"?'):format(near) or "the library has " .. table.concat(names, ", ")
  end
  cnf.error({
    op = "require",
    subject = name,
    code = "ENOENT",
    message = "there is no such module",
    -- Where files were looked for says nothing of a module of the library.
    detail = not name:find("^cnf%.") and table.concat(tried, "\n"):gsub("\n%s+", "\n") or nil,
    hint = hint,
  })
end

-- require: the same as Lua's own, but its chunks can wait, since no C function stands between that could not.
local loading = {}
require = standing(function(name)
  if type(name) ~= "string" then
    cnf.error({ op = "require", code = "EINVAL", message = "takes a module's name, got " .. type(name) })
  end
  local loaded = package.loaded[name]
  if loaded ~= nil then
    return loaded
  end
  if loading[name] then
    cnf.error({ op = "require", subject = name, code = "ELOOP", message = "it requires itself, by way of others" })
  end
  local tried = {}
  for _, searcher in ipairs(package.searchers) do
    local loader, extra = searcher(name)
    if type(loader) == "function" then
      loading[name] = true
      local ok, result = pcall(loader, name, extra)
      loading[name] = nil
      if not ok then
        error(result, 0)
      end
      if result ~= nil then
        package.loaded[name] = result
      elseif package.loaded[name] == nil then
        package.loaded[name] = true
      end
      return package.loaded[name], extra
    elseif type(loader) == "string" then
      tried[#tried + 1] = loader
    end
  end
  not_found(name, tried)
end)

-- What would stop every task, or leave without cleaning up ----------------------------------------------------------

function os.exit(code)
  cnf.exit(code)
end

-- Loaded by the first use: most scripts start no command.
local blocking = {}
local function waiting(library, name)
  blocking[#blocking + 1] = { library, name, library[name] }
  local function stand_in(...)
    if library[name] == stand_in then
      for _, function_ in ipairs(blocking) do
        function_[1][function_[2]] = function_[3]
      end
      cnf._files.install()
    end
    return library[name](...)
  end
  library[name] = stand_in
end
waiting(os, "execute")
waiting(io, "popen")
waiting(io, "read")
waiting(io, "lines")

-- Globals ----------------------------------------------------------------------------------------------------------

local DECLARE = 'declare variables with `local`; modules come from `require "cnf"`'

local function known_globals()
  local known = {}
  for name in pairs(_G) do
    known[#known + 1] = name
  end
  return known
end

--- For `-e` and the REPL: the modules are plain names, and variables need no `local`. `hint` is for a name that has no value.
local function interactive(hint)
  return setmetatable({}, {
    __index = function(environment, key)
      local value = rawget(_G, key)
      if value ~= nil then
        return value
      end
      if key == "cnf" then
        return cnf
      end
      if key == "help" then
        return function(...)
          print(cnf._prompt.help(...))
        end
      end
      if type(key) == "string" and key:sub(1, 1) ~= "_" and (host.modules[key] or host.library[key]) then
        return cnf[key]
      end
      local known = known_globals()
      table.move(names, 1, #names, #known + 1, known)
      for name in next, environment do
        known[#known + 1] = tostring(name)
      end
      host.unknown("undeclared global", key, known, hint)
    end,
  })
end

setmetatable(_G, {
  __index = function(_, key)
    host.unknown("undeclared global", key, known_globals(), DECLARE)
  end,
  __newindex = function(_, key)
    host.unknown("assignment to undeclared global", key, {}, DECLARE)
  end,
})

-- The value that was raised survives the way out: as a string it would lose its fields. One that does not know its line
-- is told it here, where the stack is still there.
local function run(fn, ...)
  return xpcall(fn, host.located, ...)
end

return run, interactive, cnf
