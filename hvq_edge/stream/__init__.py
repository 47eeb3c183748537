"""The streaming inspector: sources, decisions, sinks."""

from hvq_edge.stream.inspection import inspect

__all__ = ["inspect"]
