"""ONNX graphs: written, read, measured."""
