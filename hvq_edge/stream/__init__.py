"""The streaming inspector: sources, capture, sinks, log, live page."""
