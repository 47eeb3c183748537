"""A Triton server as the engine."""
