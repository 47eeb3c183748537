"""Sinks that send messages over the network."""
