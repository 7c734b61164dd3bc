--- A global that the object does not have: the nearest.
package.path = "./?.lua"
require("cnf").bpf.compile({
  source = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
    .. 'const volatile int limit; SEC("tc") int run(void *ctx) { return limit; }\n',
}, { globals = { limits = 5 } })
