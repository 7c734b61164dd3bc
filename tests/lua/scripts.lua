--- The scripts of scripts/: each runs as it is, prints what its head promises, and leaves nothing behind.

local cnf = require("cnf")
local netns, test = cnf.netns, cnf.test

local host = netns.host()

--- What a script's head says: the output to expect (# stands for a number), and the features it needs.
local function head(path)
  local output, requires, reading = {}, {}, false
  for line in io.lines(path) do
    local text = line:match("^%-%-%- ?(.*)$")
    if not text then
      break
    end
    local needs = text:match("^requires: (.*)$")
    if needs then
      for feature in needs:gmatch("%S+") do
        requires[#requires + 1] = feature
      end
    end
    if reading then
      output[#output + 1] = text:match("^  (.*)$")
    end
    reading = reading or text == "output:"
  end
  return output, requires
end

local function pattern(line)
  local escaped = line:gsub("%p", "%%%0"):gsub("%%#", "[%%d.]+")
  return "^" .. escaped .. "$"
end

local function run(t, path, ...)
  local expected = head(path)
  t:ok(#expected > 0, path .. " says what output to expect")
  -- The child is this very program: /proc/self/exe is read before it becomes another.
  local done = host:exec({ "/proc/self/exe", path, ... }, { check = false, timeout = "300s" })
  t:equal(done.code, 0, done.stderr)
  local lines = {}
  for line in done.stdout:gmatch("[^\n]+") do
    lines[#lines + 1] = line
  end
  t:equal(#lines, #expected, done.stdout)
  for i, line in ipairs(expected) do
    t:ok(lines[i]:match(pattern(line)), ("line %d is %q, not %q"):format(i, lines[i], line))
  end
  t:ok(not done.stderr:find("left behind", 1, true), done.stderr)
  for line in io.lines(path) do
    for name in line:gmatch('netns%.new%("([^"]+)"%)') do
      t:ok(not netns.exists(name), name .. " is gone")
    end
  end
end

for path in host:exec("ls scripts/*.lua").stdout:gmatch("%S+") do
  local _, requires = head(path)
  test.case(path, function(t)
    t:requires(table.unpack(requires))
    run(t, path)
  end)
  if #requires > 0 then
    test.case(path .. " --link veth", function(t)
      run(t, path, "--link", "veth")
    end)
  end
end
