"""INT8: calibration images, ranges of activations, int8 weights, and which layers stay in float."""
