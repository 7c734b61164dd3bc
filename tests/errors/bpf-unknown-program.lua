--- A program that the object does not have: the nearest.
package.path = "./?.lua"
local object = require("lib.counter").load()

print(object.programs.cuont)
