--- A chunk that does not compile.
local t = { 1, 2
print(t)
