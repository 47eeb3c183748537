"""How fast a bundle runs on this machine, side by side with others in one run."""
