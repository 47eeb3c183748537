"""Metrics of images and pixels, with intervals."""
