--- bpf.compile: clang at run time, cached by content, with clang's own words when it refuses.
local cnf = require("cnf")
local bpf, netns, test = cnf.bpf, cnf.netns, cnf.test

local host = netns.host()
local FRAME = ("\0"):rep(64)
local PROGRAM = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("tc") int answer(struct __sk_buff *skb) { return ANSWER; }
char LICENSE[] SEC("license") = "GPL";
]]

--- A folder of its own with these files in it.
local function folder(t, files)
  local path = host:exec({ "mktemp", "-d" }).stdout:match("%S+")
  t:defer(function()
    host:exec({ "rm", "-r", path })
  end)
  local function write(name, text)
    local file <close> = assert(io.open(path .. "/" .. name, "w"))
    file:write(text)
  end
  for name, text in pairs(files) do
    write(name, text)
  end
  return path, write
end

local function run(object)
  return object.programs.answer:test_run({ packet = FRAME }).retval
end

--- Runs a chunk in another process of ours, with that environment.
local function script(t, chunk, env)
  local binary = host:exec({ "readlink", ("/proc/%s/exe"):format(cnf._test.pid()) }).stdout
  local all = { "env" }
  for name, value in pairs(env) do
    all[#all + 1] = ("%s=%s"):format(name, value)
  end
  for _, word in ipairs({ binary:match("%S+"), "-e", chunk }) do
    all[#all + 1] = word
  end
  return host:exec(all, { timeout = 300, check = false })
end

test.case("flags and folders reach clang, headers beside the source are found", function(t)
  local path = folder(t, {
    ["a.bpf.c"] = '#include "own.h"\n#include <far.h>\n' .. PROGRAM,
    ["own.h"] = "#define OWN 1\n",
  })
  local other = folder(t, { ["far.h"] = "#define ANSWER (OWN + FLAG)\n" })
  local o = bpf.compile(path .. "/a.bpf.c", { cflags = { "-DFLAG=41" }, include = { other } })
  t:equal(run(o), 42)
  t:equal(o.name, path .. "/a.bpf.c")
  t:equal(bpf.compile({ source = PROGRAM }, { cflags = { "-DANSWER=3" }, name = "three" }).name, "three")
end)

test.case("a copy elsewhere is an object of its own: its lines are of another file", function(t)
  local source = '#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\nSEC("tc") int bad(void *skb) { return *(int *)0; }\n'
  for _ = 1, 2 do
    local path = folder(t, { ["a.bpf.c"] = source })
    local e = t:raises(function()
      bpf.compile(path .. "/a.bpf.c")
    end)
    local text = tostring(e) .. (e.detail or "")
    t:ok(text:find(path, 1, true), text)
  end
end)

test.case("an edited header compiles again, an edited comment does not matter", function(t)
  local path, write = folder(t, {
    ["a.bpf.c"] = '#include "own.h"\n' .. PROGRAM,
    ["own.h"] = "#define ANSWER 1\n",
  })
  t:equal(run(bpf.compile(path .. "/a.bpf.c")), 1)
  write("own.h", "#define ANSWER 2\n")
  t:equal(run(bpf.compile(path .. "/a.bpf.c")), 2)
  write("own.h", "#define ANSWER 1\n")
  t:equal(run(bpf.compile(path .. "/a.bpf.c")), 1)
end)

test.case("the cache is used, and may be read-only", function(t)
  local cache = folder(t, {})
  local chunk = ([[
    local o = require("cnf").bpf.compile({ source = %q }, { cflags = { "-DANSWER=9" } })
    print(o.programs.answer.name)
  ]]):format(PROGRAM)
  local first = script(t, chunk, { XDG_CACHE_HOME = cache })
  t:equal(first.stdout, "answer\n", first.stderr)
  local function objects(where)
    return tonumber(host:exec({ "sh", "-c", "ls " .. where .. " | grep -c '[.]o$'" }).stdout)
  end
  t:equal(objects(cache .. "/cnfscript"), 1)
  t:equal(script(t, chunk, { XDG_CACHE_HOME = cache }).stdout, "answer\n")
  t:equal(objects(cache .. "/cnfscript"), 1)
  -- Where it cannot be kept, it is kept for the time being.
  local temporary = folder(t, {})
  local away = script(t, chunk, { XDG_CACHE_HOME = "/proc/nowhere", TMPDIR = temporary })
  t:equal(away.stdout, "answer\n", away.stderr)
  t:equal(objects(temporary .. "/cnfscript-0"), 1)
end)

test.case("clang's own words, with line and column", function(t)
  local path = folder(t, { ["bad.bpf.c"] = '#include "missing.h"\n' .. PROGRAM })
  local missing = t:raises(function()
    bpf.compile(path .. "/bad.bpf.c")
  end, "EINVAL")
  t:ok(missing.message:find("missing.h' file not found", 1, true), missing.message)
  t:ok(missing.detail:find("bad.bpf.c:1:10", 1, true), missing.detail)
  local undeclared = t:raises(function()
    bpf.compile({ source = PROGRAM })
  end, "EINVAL")
  t:ok(undeclared.message:find("undeclared identifier 'ANSWER'", 1, true), undeclared.message)
  t:ok(undeclared.detail:find("source:3:", 1, true), undeclared.detail)
end)

test.case("what is not there, and what is not understood", function(t)
  t:raises(function()
    bpf.compile("/nowhere/a.bpf.c")
  end, "ENOENT")
  t:raises(function()
    bpf.compile(5)
  end, "takes a path, or {source = ...}, got 5")
  t:raises(function()
    bpf.compile({})
  end, "source is missing")
  local unknown = t:raises(function()
    bpf.compile({ source = "" }, { cflag = {} })
  end, 'unknown option "cflag"')
  t:equal(unknown.hint, 'did you mean "cflags"?')
  t:raises(function()
    bpf.compile({ source = "" }, { cflags = "-O2" })
  end, "cflags must be an array")
  t:raises(function()
    bpf.compile({ source = "int nothing;\n" })
  end, "the object has no programs")
end)

test.case("no clang is said, and what to do about it", function(t)
  local chunk = "require('cnf').bpf.compile({ source = 'int x;' })"
  local refused = script(t, chunk, { PATH = "/nowhere" })
  t:equal(refused.code, 1)
  t:ok(refused.stderr:find("clang is not installed (ENOENT)", 1, true), refused.stderr)
  t:ok(refused.stderr:find("apt install clang libbpf-dev", 1, true), refused.stderr)
  local odd = script(t, chunk, { PATH = "/nowhere", CLANG = "/bin/false" })
  t:ok(odd.stderr:find("clang is not installed", 1, true), odd.stderr)
end)
