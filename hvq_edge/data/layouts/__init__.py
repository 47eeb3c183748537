"""Layouts of data sets: MVTec AD, VisA, plain folders; which files are images, which masks."""
