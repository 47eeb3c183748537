"""Sinks that drive the plant: PLC nodes, coils, lines."""
