"""``verify.json``: what ``hvq-edge verify`` found, for machines and for the acceptance report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hvq_edge.bundle.manifest import Precision
from hvq_edge.common.records import Measured, read_record
from hvq_edge.errors import InputError
from hvq_edge.export.verify.agreement import Agreement

RunnerName = Literal["ONNX Runtime", "OpenVINO", "TensorRT", "TensorRT-RTX"]


class NotRun(Measured):
    """A library that a bundle was not compared on, and why."""

    runner: RunnerName
    precision: Precision | None
    """``None``: none at all."""
    reason: str


class TensorError(Measured):
    """How far one tensor of a graph is from the same tensor of the reference."""

    tensor: str
    module: str
    """That computes it, such as ``encoder.0.feedforward.linear1``."""
    operator: str
    error: float
    """``|other - reference| / |reference|`` over all elements (Euclidean); for integers, such as
    codes, the share that differs."""


class Bisection(Measured):
    """The first tensor of a graph that is outside the tolerance."""

    precision: Precision
    against: str
    """The reference, in words."""
    image: str
    tolerance: float
    compared: int
    """Tensors that both graphs have."""
    first: TensorError | None
    """``None``: none is outside; then the fault is in what runs the graph."""
    before: tuple[TensorError, ...]
    """The tensors that come just before it, or, where none is outside, the worst."""


class PrecisionVerdict(Measured):
    """Whether a precision may be used: every runner of it passed."""

    passed: bool
    faults: tuple[str, ...]


class Verification(Measured):
    """The content of ``verify.json``."""

    passed: bool
    checkpoint_sha256: str
    data: str
    images: int
    models: dict[Precision, str] = Field(default={})
    """SHA-256 of each graph that was compared."""
    precisions: dict[Precision, PrecisionVerdict]
    comparisons: tuple[Agreement, ...]
    not_run: tuple[NotRun, ...] = ()
    commands: dict[Precision, str] = Field(default={})
    """That repeat the comparison with Polygraphy alone, on the images saved in ``verify/``."""
    bisections: tuple[Bisection, ...] = ()


def read_verification(path: Path) -> Verification:
    """Read ``verify.json`` of this version.

    Raises:
        InputError: it cannot be read, or is of another version.
    """
    return read_record(
        path,
        Verification,
        InputError,
        kind="a verification",
        next_step="run hvq-edge verify",
        again="run hvq-edge verify again",
    )
