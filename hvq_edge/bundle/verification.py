"""``verify.json``: what ``hvq-edge verify`` found, for machines and for the acceptance report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from hvq_edge.bundle.manifest import BundleManifest
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.precision import PRECISIONS, Precision
from hvq_edge.common.records import Extensible, Measured, kept_record, parsed_record, read_record
from hvq_edge.errors import InputError
from hvq_edge.verdict.judgement import Verdict, VerdictCounts

VERIFY_NAME = "verify.json"
"""In the bundle's folder."""

RunnerName = Literal[
    "ONNX Runtime",
    "OpenVINO",
    "TensorRT",
    "TensorRT-RTX",
    "ONNX Runtime CUDA",
    "ONNX Runtime TensorRT",
    "ONNX Runtime TensorRT-RTX",
]
Verdicts = Mapping[Precision, bool]
"""Whether ``hvq-edge verify`` passed a precision; those it has not judged are missing."""


class Limits(Measured):
    """What a precision may differ by."""

    map_error: float
    """Largest difference of a map's cell, relative to the largest absolute value of all maps.

    Over the images whose codes are all equal, where there are any: a token that lies between two
    prototypes may take either, which moves its map a little, and counts as a differing code."""
    map_correlation: float
    """Of all cells of the same images."""
    code_agreement: float
    """Share of equal codes, on the worst level."""
    decisions_changed: float
    """Share of the images, of all together and of each of several categories; of a category one
    image is allowed even if it is more, unless this is 0."""


class SideVerdict(Measured):
    """What the line would say of an image with one side's outputs and thresholds."""

    category: str
    """Judged as."""
    score: float
    threshold: float | None
    """Of that side's precision; ``None``: the category has none, so there is no decision."""
    verdict: Verdict
    reason: str


class ImageVerdicts(Measured):
    """One image, judged by the PyTorch model and by another runner."""

    image: str
    """Relative to the dataset, with forward slashes."""
    category: str
    """The one it shows."""
    good: bool
    reference: SideVerdict
    other: SideVerdict

    @property
    def changed(self) -> bool:
        """Whether the verdict differs."""
        return self.reference.verdict != self.other.verdict


class CategoryDecisions(Measured):
    """The decisions on one category's images."""

    category: str
    images: int
    changed: tuple[ImageVerdicts, ...]
    """Images whose verdict differs."""
    good_verdicts: VerdictCounts
    """The other runner's verdicts on good images."""
    defective_verdicts: VerdictCounts


class Agreement(Measured):
    """One runner against PyTorch, over all images."""

    precision: Precision
    runner: str
    images: int
    map_error: float
    map_correlation: float
    score_error_median: float
    """Absolute, in units of the score, as the next two."""
    score_error_p95: float
    score_error_max: float
    margin_error_max: float | None
    """Absolute; ``None`` where the category is known and there is no margin."""
    code_agreement: tuple[float, ...]
    """Share of equal codes, level by level; the top level last."""
    category_agreement: float
    decisions_changed: tuple[str, ...]
    """Images whose verdict differs, each under its own precision's threshold."""
    decisions: tuple[CategoryDecisions, ...]
    """The same, category by category."""
    limits: Limits
    faults: tuple[str, ...]
    """Which limits were broken, in words; empty: passed."""

    @property
    def passed(self) -> bool:
        """Whether every number is within its limit."""
        return not self.faults


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
    """Whether a precision may be used: every runner of it passed, or one provider's did."""

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
    """Without ONNX Runtime's providers for GPUs: one that fails is no fault of the file."""
    providers: dict[str, dict[Precision, PrecisionVerdict]] = Field(default={})
    """By backend, such as ``onnxruntime-cuda``: those that ran."""
    comparisons: tuple[Agreement, ...]
    not_run: tuple[NotRun, ...] = ()
    libraries: dict[str, str] = Field(default={})
    """Version of each library that it was compared on; empty: before it was recorded."""
    created: str = ""
    """ISO 8601, UTC; empty: before it was recorded."""
    commands: dict[Precision, str] = Field(default={})
    """That repeat the comparison with Polygraphy alone, on the images saved in ``verify/``."""
    bisections: tuple[Bisection, ...] = ()

    @property
    def faults(self) -> tuple[tuple[Precision, str], ...]:
        """Each precision with a fault, in words that begin with the runner."""
        verdicts = (self.precisions, *self.providers.values())
        return tuple(
            (precision, fault)
            for verdict in verdicts
            for precision, one in verdict.items()
            for fault in one.faults
        )


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


def of_these_graphs(verification: Verification, manifest: BundleManifest) -> bool:
    """Tell whether a verification is of the very graphs that a bundle has."""
    return verification.models == {
        name: manifest.files[file].sha256 for name, file in manifest.models.items()
    }


class _Passed(Extensible):
    passed: bool


class _Verdicts(Extensible):
    """What of the file the choice of a precision rests on, whatever version wrote the rest."""

    precisions: dict[str, _Passed]
    providers: dict[str, dict[str, _Passed]] = Field(default={})


def read_verdicts(bundle: Bundle) -> Verdicts:
    """Return what a bundle's ``verify.json`` says; nothing where there is no such file.

    In a file that cannot be read none passed: int8 is used by default only on good evidence. Of a
    signed bundle the file is the signed one, or there is none.

    Raises:
        BundleError: the bundle is signed, and the file is another now.
    """
    return read_all_verdicts(bundle)[0]


def read_all_verdicts(bundle: Bundle) -> tuple[Verdicts, Mapping[str, Verdicts]]:
    """Return the same, and that of each of ONNX Runtime's providers that it ran, by backend.

    Raises:
        BundleError: as :func:`read_verdicts`.
    """
    found, damaged = _read(bundle)
    on_providers = {backend: _known(verdicts) for backend, verdicts in found.providers.items()}
    if damaged:
        return dict.fromkeys(PRECISIONS, False), on_providers
    return _known(found.precisions), on_providers


def _read(bundle: Bundle) -> tuple[_Verdicts, bool]:
    """Return what the file says, and whether there is one that cannot be read."""
    path = bundle.path / VERIFY_NAME
    if not bundle.signed:
        found = kept_record(path, _Verdicts)
    elif VERIFY_NAME in bundle.manifest.files:
        found = parsed_record(path, bundle.read(VERIFY_NAME), _Verdicts)
    else:
        return _Verdicts(precisions={}), False
    return found or _Verdicts(precisions={}), found is None and path.exists()


def _known(verdicts: Mapping[str, _Passed]) -> Verdicts:
    return {name: verdicts[name].passed for name in PRECISIONS if name in verdicts}
