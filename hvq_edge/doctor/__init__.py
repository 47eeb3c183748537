"""What this machine can do for hvq-edge, and what to do about what it cannot."""
