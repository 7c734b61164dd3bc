--- A block that is never closed.
if true then
  print("no end")
