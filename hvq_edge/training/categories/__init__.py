"""Products added to a finished run, taken out of it, given another name."""
