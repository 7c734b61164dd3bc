--- A table that knows its text.
error(setmetatable({}, {
  __tostring = function()
    return "the text of the table"
  end,
}))
