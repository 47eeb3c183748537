"""Engines that need no GPU: OpenVINO, ONNX Runtime and PyTorch; the last two can use one."""
