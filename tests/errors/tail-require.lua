--- As modules end that only name another.
package.path = "./?.lua"
package.cpath = "./?.so"
return require("nowhere")
