"""Stand-ins for vendors' own device plugins, which read node locks and pod annotations as the real ones do."""
