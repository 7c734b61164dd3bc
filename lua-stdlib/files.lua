--- `os.execute`, `io.popen` and reads of standard input with the faces of Lua's manual, but suspending only the task
--- that calls them. Returns the function that puts them in place.

local _, cnf = ...

local native = cnf._shell

--- Lua's three results of a command that has ended.
local function outcome(how, code)
  if how == "exit" and code == 0 then
    return true, how, code
  end
  return nil, how, code
end

-- Files ------------------------------------------------------------------------------------------------------------

local File = { __name = "FILE*" }
File.__index = File

local function new_file(stream)
  return setmetatable({ stream = stream, closed = false }, File)
end

function File:__tostring()
  return self.closed and "file (closed)" or ("file (%s)"):format(tostring(self.stream))
end

local function open(file)
  if file.closed then
    error("attempt to use a closed file", 3)
  end
  return file.stream
end

local function number(stream)
  -- Numbers share a line only with spaces, as they do in what commands print.
  return tonumber((stream:line() or ""))
end

local function read_one(stream, format)
  if math.type(format) == "integer" then
    return format == 0 and "" or stream:bytes(format)
  end
  local kind = type(format) == "string" and format:match("^%*?([nlLa])")
  if kind == "l" then
    local line = stream:line()
    return line and (line:gsub("\n$", ""))
  elseif kind == "L" then
    return stream:line()
  elseif kind == "a" then
    return stream:all() or ""
  elseif kind == "n" then
    return number(stream)
  end
  error(("bad argument to 'read' (invalid format %s)"):format(tostring(format)), 3)
end

function File:read(...)
  local stream = open(self)
  if select("#", ...) == 0 then
    return read_one(stream, "l")
  end
  local results, count = {}, select("#", ...)
  for i = 1, count do
    results[i] = read_one(stream, (select(i, ...)))
    if results[i] == nil then
      return table.unpack(results, 1, i)
    end
  end
  return table.unpack(results, 1, count)
end

function File:lines(...)
  local formats = table.pack(...)
  return function()
    return self:read(table.unpack(formats, 1, formats.n))
  end
end

function File:write(...)
  local stream = open(self)
  for i = 1, select("#", ...) do
    local text = select(i, ...)
    if type(text) ~= "string" and type(text) ~= "number" then
      error(("bad argument #%d to 'write' (string expected, got %s)"):format(i, type(text)), 2)
    end
    stream:put(tostring(text))
  end
  return self
end

function File:close()
  local stream = open(self)
  self.closed = true
  local how, code = stream:finish()
  if how then
    return outcome(how, code)
  end
  return true
end

function File:flush()
  return self
end

function File:setvbuf()
  return true
end

function File:seek()
  return nil, "a pipe has no positions"
end

File.__close = function(self)
  if not self.closed then
    self:close()
  end
end

-- In place ---------------------------------------------------------------------------------------------------------

return {
  install = function()
    local plain_lines, plain_type, plain_input = io.lines, io.type, io.input
    local stdin = new_file(native.stdin())
    local plain_stdin = io.stdin

    function os.execute(command)
      if command == nil then
        return true
      end
      return outcome(native.execute(command))
    end

    function io.popen(command, mode)
      if mode ~= nil and mode ~= "r" and mode ~= "w" then
        error(("bad argument #2 to 'popen' (invalid mode %s)"):format(tostring(mode)), 2)
      end
      io.stdout:flush()
      return new_file(native.popen(command, mode == "w"))
    end

    io.stdin = stdin

    --- Standard input unless `io.input` has chosen a file.
    local function input()
      local chosen = plain_input()
      return chosen == plain_stdin and stdin or chosen
    end

    function io.input(file)
      if file == stdin then
        plain_input(plain_stdin)
      elseif file ~= nil then
        plain_input(file)
      end
      return input()
    end

    function io.read(...)
      return input():read(...)
    end

    function io.lines(name, ...)
      if name == nil then
        return input():lines(...)
      end
      return plain_lines(name, ...)
    end

    function io.type(value)
      if getmetatable(value) == File then
        return value.closed and "closed file" or "file"
      end
      return plain_type(value)
    end
  end,
}
