--- A module of the library, misspelt.
require("cnf.polcy")
