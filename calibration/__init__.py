"""Calibration pictures, INT8 ranges, thresholds."""
