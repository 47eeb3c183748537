"""Metrics, tables and the HTML report."""
