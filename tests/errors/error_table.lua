--- A table without __tostring is no message.
error({ code = "ESTRANGE" })
