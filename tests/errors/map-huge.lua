--- More entries than any memory holds.
package.path = "./?.lua"
require("lib.counter").load({ max_entries = { rules = 0xffffffff } })
