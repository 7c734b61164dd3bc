--- A hook's side that is not spelt as it should be.
require("cnf").bpf.compile({
  source = '__attribute__((section("tcx/ingres"), used)) int run(void *ctx) { return 0; }\n',
})
