"""The streaming inspector: sources, decisions, sinks."""
