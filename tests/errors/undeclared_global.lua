--- Reading a global that nobody declared.
local address = "10.0.0.1"
print(adress)
