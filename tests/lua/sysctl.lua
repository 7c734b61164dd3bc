--- Kernel settings of a namespace.
local cnf = require("cnf")
local test, netns = cnf.test, cnf.netns

test.case("read and written, inside the namespace alone", function(t)
  local a, b = t:netns("a"), t:netns("b")
  for _, case in ipairs({
    { "net.ipv4.ip_forward", 1, "1" },
    { "net.ipv4.ip_forward", "0", "0" },
    { "net.ipv6.conf.all.forwarding", true, "1" },
    { "net.ipv6.conf.all.forwarding", false, "0" },
    { "net/ipv4/conf/lo/rp_filter", 2, "2" },
    { "net.ipv4.ping_group_range", "0 100", "0\t100" },
    { "net.core.somaxconn", "0x10", "16" },
  }) do
    local key, value, reads = table.unpack(case)
    local other = b:sysctl(key)
    t:equal(a:sysctl(key, value), reads, key)
    t:equal(a:sysctl(key), reads, key)
    t:equal(b:sysctl(key), other, key)
  end
end)

test.case("errors name the key, and the nearest that there is", function(t)
  local ns = t:netns("bad")
  local error = t:raises(function()
    ns:sysctl("net.ipv4.ip_forwad")
  end, "ENOENT")
  t:equal(error.hint, 'did you mean "net.ipv4.ip_forward"?')
  error = t:raises(function()
    ns:sysctl("net.ipv5.ip_forward", 1)
  end, "ENOENT")
  t:equal(error.hint, 'did you mean "net.ipv4.ip_forward"?')
  for _, case in ipairs({
    { "EISDIR", "net.ipv4" },
    { "EINVAL", "net.ipv4.ip_forward", "maybe" },
    { "EINVAL", "net.ipv4.ip_forward", {} },
    { "EINVAL", "../../etc/passwd" },
    { "EINVAL", "" },
  }) do
    t:raises(function()
      ns:sysctl(case[2], case[3])
    end, case[1])
  end
end)

test.case("restored at the end, to what stood before the first write", function(t)
  local name = t:netns("x").name .. "-ip"
  netns.host():exec({ "ip", "netns", "add", name })
  t:defer(function()
    netns.host():exec({ "ip", "netns", "delete", name })
  end)
  local theirs = netns.get(name)
  local function run(chunk)
    local line = 'exec /proc/$PPID/exe -e "$0"'
    local text = ("local ns = netns.get(%q)\n%s\nos.exit(0)"):format(name, chunk)
    return netns.host():exec({ "sh", "-c", line, text })
  end
  netns.host():exec({ "ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_default_ttl=77" })
  local done = run([[
    ns:sysctl("net.ipv4.ip_default_ttl", 10)
    ns:sysctl("net.ipv4.ip_default_ttl", 20)
    ns:sysctl("net.ipv6.conf.all.forwarding", 1)
  ]])
  t:ok(done.stderr:find("removed 3 sysctls") or done.stderr:find("removed 2 sysctls"), done.stderr)
  t:equal(theirs:sysctl("net.ipv4.ip_default_ttl"), "77")
  t:equal(theirs:sysctl("net.ipv6.conf.all.forwarding"), "0")
  -- What someone else changed since is left, and said.
  done = run([[
    ns:sysctl("net.ipv4.ip_default_ttl", 10)
    ns:exec("sysctl -qw net.ipv4.ip_default_ttl=33")
  ]])
  t:ok(done.stderr:find("changed by someone else"), done.stderr)
  t:equal(theirs:sysctl("net.ipv4.ip_default_ttl"), "33")
end)
