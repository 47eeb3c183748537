"""Decisions drawn over frames."""
