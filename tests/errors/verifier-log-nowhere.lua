--- args: --verifier-log /nowhere/log SCRIPT
--- status: 2
print("not reached")
