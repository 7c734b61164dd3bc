--- A module that require cannot find.
package.path = "./?.lua"
package.cpath = "./?.so"
require("nowhere")
