--- args: --memory 16m SCRIPT
--- A table that grows without end, in a loop that swallows errors.
local all = {}
while true do
  pcall(function()
    all[#all + 1] = ("x"):rep(1000) .. #all
  end)
end
