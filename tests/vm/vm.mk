# Runs one command on another kernel: make vm CMD="uname -r" [KERNEL=6.12|6.1].
# Included by the Makefile at the root.

KERNEL ?= 6.12

.PHONY: vm
vm: export VM_CMD = $(value CMD)
vm:
	@tests/vm/fetch $(KERNEL)
	@tests/vm/run --kernel $(KERNEL) -- "$$VM_CMD"
