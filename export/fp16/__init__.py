"""Graphs in float16."""
