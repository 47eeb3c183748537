"""What a model of a bundle is called on a Triton server, and what it says of itself there."""

from __future__ import annotations

from hvq_edge.bundle.manifest import Precision

PREFIX = "hvq_edge"
GRAPH_PARAMETER = "hvq_edge.onnx_sha256"
"""Of the model's configuration: SHA-256 of the ONNX file that it is, or was built from."""


def model_name(precision: Precision) -> str:
    """Return the model's name, such as ``hvq_edge_int8_fp16``."""
    return f"{PREFIX}_{precision.replace('-', '_')}"
