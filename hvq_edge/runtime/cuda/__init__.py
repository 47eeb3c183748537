"""CUDA devices and their memory."""
