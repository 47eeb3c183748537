"""From a source to a frame that is ready for the engine."""
