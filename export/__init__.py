"""PyTorch model -> folded model -> ONNX -> precision, and the proof of every step."""
