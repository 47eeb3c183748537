"""Which engine runs a bundle on this machine, and why."""
