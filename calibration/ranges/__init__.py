"""Ranges of activations."""
