--- Nothing at all was raised.
error()
