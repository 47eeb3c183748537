"""A bundle against the PyTorch model."""
