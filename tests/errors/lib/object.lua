--- Compiles C to an object's bytes, to be damaged and loaded.
local cnf = require("cnf")

local HEAD = [[
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char LICENSE[] SEC("license") = "GPL";
struct rule { __u32 address; __u16 port; };
]]

--- The bytes of `source`, with the usual headers and `struct rule` before it.
return function(source)
  local clang = { "clang", "-target", "bpf", "-O2", "-g", "-mcpu=v3", "-x", "c", "-c", "-", "-o", "-" }
  for _, machine in ipairs({ "x86_64", "aarch64" }) do
    table.insert(clang, 2, "-I/usr/include/" .. machine .. "-linux-gnu")
  end
  return cnf.netns.host():exec(clang, { stdin = HEAD .. source }).stdout
end
