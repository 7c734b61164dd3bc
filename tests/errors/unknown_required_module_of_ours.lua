--- The library's modules are fields of cnf, or "cnf." and their name.
package.path = "./?.lua"
package.cpath = "./?.so"
require("task")
