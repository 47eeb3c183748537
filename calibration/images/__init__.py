"""The images that set INT8 ranges."""
