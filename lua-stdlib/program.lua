--- `_program`: what the modules of the program library share: their programs on hooks, all of them or
--- none, and errors that name the function that was called.

local _, cnf = ...

local program = {}

--- `fn(...)`, its errors told as those of `op` about `subject`.
function program.as(op, subject, fn, ...)
  local results = table.pack(pcall(fn, ...))
  if results[1] then
    return table.unpack(results, 2, results.n)
  end
  local problem = results[2]
  if type(problem) == "string" or not problem.message then
    error(problem, 0)
  end
  cnf.error({
    op = op,
    subject = subject,
    code = problem.code,
    message = problem.message,
    hint = problem.hint,
    detail = problem.detail,
  })
end

--- What an object of the library is called: equal in the next load of the script, and for no other link.
function program.name_of(what, link)
  return ("%s/%s/%s"):format(what, link.netns.name, link.name)
end

--- Whether frames of the link begin with their IP header (tun, wireguard, ipip ...): its address is not a MAC.
function program.headerless(link)
  local ok, info = pcall(link.info, link)
  if not ok then
    if type(info) ~= "string" and info.code == "ENODEV" then
      cnf.error({ code = "ENODEV", message = ("the link %s is gone"):format(link.name) })
    end
    error(info, 0)
  end
  local mac = info.mac
  return not (mac and #mac == 17)
end

--- Puts programs on hooks, `places = {{link, side, order}, ...}`, in a slot named by what they are ("mirror") and their name;
--- `choose(link, side)` gives the program for a hook, `order` the order words; without any it stands where `_chain` says. All or
--- none: an error takes off what was put on.
function program.attach(what, name, places, choose)
  local attachments = {}
  local ok, problem = pcall(function()
    for i, place in ipairs(places) do
      local link, side, order = place[1], place[2], place[3]
      local chosen, slot = choose(link, side), ("%s/%s"):format(what, name)
      if order then
        order.slot = slot
        attachments[i] = cnf.bpf.attach(link, side, chosen, order)
      elseif side == "primary" or side == "peer" then
        attachments[i] = cnf.netkit.attach(link, side, chosen, { slot = slot, first = true })
      else
        attachments[i] = cnf._chain.attach(link, side, chosen, slot)
      end
    end
  end)
  if ok then
    return attachments
  end
  program.detach(attachments)
  if type(problem) ~= "string" and problem.code == "EEXIST" then
    cnf.error({
      code = "EEXIST",
      message = ('%s "%s" is on this hook already'):format(what, name),
      hint = 'give each of one hook a name of its own: {name = "..."}',
    })
  end
  error(problem, 0)
end

--- Takes them off, the last first.
function program.detach(attachments)
  for i = #attachments, 1, -1 do
    attachments[i]:detach()
    attachments[i] = nil
  end
end

return program
