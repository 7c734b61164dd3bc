# Two commands do everything: `make demo` and `make test`. Both install what is missing first.

include tests/vm/vm.mk

SHELL := /bin/bash
export CARGO_TERM_COLOR ?= auto
BIN := target/release/cnfscript

# What building and running needs, and what only the tests need, as Debian packages.
BUILD_PACKAGES := build-essential clang llvm libbpf-dev linux-libc-dev iproute2
TEST_PACKAGES := $(BUILD_PACKAGES) qemu-system-x86 qemu-system-common busybox-static kmod cpio xz-utils util-linux \
	iputils-ping bpftool xdp-tools tcpdump procps lua5.4 jq

.PHONY: build demo test test-host test-vm check bench deps test-deps install clean

build: deps                    ## the release binary
	cargo build --release --locked

demo: build                    ## build, then run the main job
	$(call as-root,$(BIN) scripts/policy_router.lua)

test: test-deps                ## every check and test, on three kernels
	$(call as-root,tests/run all)

test-host: test-deps           ## the same without the VM
	$(call as-root,tests/run host)

test-vm: test-deps             ## only the VM's part
	$(call as-root,tests/run vm)

check: test-deps               ## format, lints
	tests/run check

bench: build test-deps         ## side by side with the peers, as ratios
	$(call as-root,bench/run)

deps:
	@tests/packages $(BUILD_PACKAGES)

test-deps:
	@tests/packages $(TEST_PACKAGES)

install: build                 ## into ~/.cargo/bin
	cargo install --path . --locked

# Namespaces and eBPF need root; the toolchain and its cache stay the caller's.
as-root = $(if $(filter 0,$(shell id -u)),$(1),sudo --preserve-env=PATH,HOME,CARGO_HOME,RUSTUP_HOME,CI $(1))

clean:
	cargo clean
