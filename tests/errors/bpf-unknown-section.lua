--- A section that no hook of ours runs.
require("cnf").bpf.compile({
  source = '__attribute__((section("xdpp"), used)) int run(void *ctx) { return 0; }\n',
})
