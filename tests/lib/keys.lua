--- The keys of a map, sorted.

return function(map)
  local keys = {}
  for key in map:pairs() do
    keys[#keys + 1] = key
  end
  table.sort(keys)
  return keys
end
