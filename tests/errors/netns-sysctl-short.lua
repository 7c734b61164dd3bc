--- A setting without the groups it is in.
require("cnf").netns.host():sysctl("ip_forward")
