"""Weights in int8, rounded and corrected together."""
