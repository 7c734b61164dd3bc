local settings = {}

return settings.policy.default
