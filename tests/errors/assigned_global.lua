--- Writing a global that nobody declared.
address = "10.0.0.1"
