"""Cameras that are there live: each is opened by a function, and read by one reader."""
