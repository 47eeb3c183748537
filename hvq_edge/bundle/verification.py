"""``verify.json``: what ``hvq-edge verify`` found, for machines and for the acceptance report."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hvq_edge.bundle.manifest import Precision
from hvq_edge.errors import InputError
from hvq_edge.export.verify.agreement import Agreement

RunnerName = Literal["ONNX Runtime", "OpenVINO", "TensorRT", "TensorRT-RTX"]


class NotRun(BaseModel):
    """A library that a bundle was not compared on, and why."""

    model_config = ConfigDict(frozen=True)

    runner: RunnerName
    precision: Precision | None
    """``None``: none at all."""
    reason: str


class TensorError(BaseModel):
    """How far one tensor of a graph is from the same tensor of the reference."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    tensor: str
    module: str
    """That computes it, such as ``encoder.0.feedforward.linear1``."""
    operator: str
    error: float
    """``|other - reference| / |reference|`` over all elements (Euclidean); for integers, such as
    codes, the share that differs."""


class Bisection(BaseModel):
    """The first tensor of a graph that is outside the tolerance."""

    model_config = ConfigDict(frozen=True)

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


class PrecisionVerdict(BaseModel):
    """Whether a precision may be used: every runner of it passed."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    faults: tuple[str, ...]


class Verification(BaseModel):
    """The content of ``verify.json``."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

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
    try:
        return Verification.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}.", next_step="run hvq-edge verify"
        ) from error
    except (ValidationError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} is not of this version.", next_step="run hvq-edge verify again"
        ) from error
