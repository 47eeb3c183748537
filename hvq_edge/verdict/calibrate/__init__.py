"""Thresholds learnt from images of good parts."""
