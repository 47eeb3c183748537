"""What happens to a frame between its source and the engine."""
