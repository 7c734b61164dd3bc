--- A value that does not fit its global.
require("cnf").bpf.compile({
  source = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
    .. 'const volatile __u8 limit; SEC("tc") int run(void *ctx) { return limit; }\n',
}, { globals = { limit = 256 } })
