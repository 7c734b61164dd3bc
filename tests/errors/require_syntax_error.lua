--- A module that does not compile.
package.path = "./?.lua"
require("lib.malformed")
