"""Dataset layouts, picture reading and splits."""
