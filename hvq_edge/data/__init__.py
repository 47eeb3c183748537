"""Dataset layouts, image reading and splits."""
