"""Where decisions go: one file a sink."""
