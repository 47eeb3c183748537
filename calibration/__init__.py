"""Calibration images, INT8 ranges, thresholds."""
