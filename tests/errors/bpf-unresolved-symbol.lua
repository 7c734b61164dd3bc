--- A function that is declared and nowhere defined.
package.path = "./?.lua"
local bytes = require("lib.object")([[
int elsewhere(int number);
SEC("tc") int p(struct __sk_buff *skb) { return elsewhere(skb->len); }
]])

require("cnf").bpf.load({ bytes = bytes }, { name = "unresolved.o" })
