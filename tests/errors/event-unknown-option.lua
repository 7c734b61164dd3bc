--- An option that event.on does not have.
require("cnf").event.on("link", { lnik = "lo" }, function() end)
