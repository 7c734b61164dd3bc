--- A module that fails while it is loaded: its own line is shown.
package.path = "./?.lua"
require("lib.broken")
