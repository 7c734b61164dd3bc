--- run: setpriv --bounding-set -all --inh-caps -all
--- status: 3
require("cnf").bpf.compile({
  source = "#include <linux/bpf.h>\n#include <bpf/bpf_helpers.h>\n"
    .. 'SEC("tc") int run(void *ctx) { return 0; }\n',
})
