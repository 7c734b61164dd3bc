--- A call with these arguments fails with an error of that code, which says `text` in its message or its hint.

return function(t, code, text, call, ...)
  local arguments = table.pack(...)
  local error = t:raises(function()
    call(table.unpack(arguments, 1, arguments.n))
  end, code)
  local said = tostring(error) .. " " .. (error.hint or "")
  t:ok(said:find(text, 1, true), said)
end
