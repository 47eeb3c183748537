"""Engines that need no GPU: OpenVINO, ONNX Runtime, PyTorch."""
