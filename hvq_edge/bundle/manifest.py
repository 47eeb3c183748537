"""What ``bundle.json`` holds of a bundle: all that a device needs to inspect, without PyTorch.

It names every file with its SHA-256 and holds what a decision needs: categories,
thresholds for each precision, and the images they were learnt from (as hashes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from hvq_edge.bundle.precision import Precision as Precision
from hvq_edge.common.atomic import sha256_of, write_text
from hvq_edge.common.records import Strict
from hvq_edge.run.category_change import CategoryChange
from hvq_edge.run.tiling import FrameShape, Tiling
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits
from hvq_edge.verdict.threshold import Threshold

MANIFEST_NAME = "bundle.json"
CategoryMode = Literal["auto", "input", "one"]


class FileRecord(Strict):
    """A file of the bundle."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class CalibrationRecord(Strict):
    """Which images set the INT8 ranges, and how."""

    method: str
    rule: str
    images: tuple[str, ...]
    """SHA-256 of each calibration image."""
    converged: bool
    """Whether more images would hardly have moved the ranges."""
    int8_layers: int
    """Convolutions and linears in int8."""
    float_layers: int
    """Those that could be in int8 and are not: ``int8-plan.toml`` in the bundle says why."""
    plan_by: Literal["rule", "search", "hand"]
    """How they were chosen."""


class Fp16Record(Strict):
    """What is float16 in the files with float16."""

    nodes: int
    """How many nodes of the float32 graph are in float16 there."""
    islands: tuple[str, ...]
    """Nodes kept in float32 because their values come near 65504, float16's largest."""
    amax: float
    """Largest absolute value of any float16 tensor on the calibration images."""
    tensor: str
    """The tensor with that value."""


class GraphNumbers(Strict):
    """How large a float32 graph is."""

    nodes: int
    weights: int
    """Numbers that are multiplied with or added to what comes from the image."""
    tables: int
    """Numbers that are looked up, by code or by category."""
    bytes: int
    """Of the file."""
    multiply_adds: int
    """Of convolutions and matrix products, for one image."""


class GraphRecord(Strict):
    """The exported graph, and what it would be with nothing folded."""

    exported: GraphNumbers
    plain: GraphNumbers


class ImageSet(Strict):
    """Images of one category with one use."""

    images: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """:func:`digest_of_set` of the images' own."""


class KnownDefects(ImageSet):
    """Defective images of one category that the model was given to train with."""

    weighted: bool
    """Whether they weight the metric; else they changed nothing."""
    scores: tuple[float, ...]
    """In float32, each by a metric that was not fitted to it; empty: too few to be used."""


class TrainingRecord(Strict):
    """The training, out of the run's ``run.json``: a bundle leaves its run behind."""

    created: str
    """ISO 8601, UTC."""
    hvq_edge_version: str
    epochs: int
    settings: dict[str, dict[str, JsonValue]]
    """Tables ``model`` and ``training``, as docs/reference/settings.md has them."""
    weights: str
    """Where the backbone's weights came from, with their SHA-256."""
    weights_licence: str = ""
    """Its name; empty: not known."""
    data_licence: str = ""
    """What the folder of images itself says; empty: nothing."""
    learnt_from: dict[str, ImageSet]
    """Good images that the model learnt from, by category."""
    held_out: dict[str, ImageSet]
    """Good images that only thresholds were learnt from, by category."""
    known_defects: dict[str, KnownDefects] = Field(default={})
    """By category, where there were any."""
    changes: tuple[CategoryChange, ...] = ()
    """Of the categories since the training, the oldest first."""


class LearntImages(Strict):
    """Images of one category that joined its prototypes after the export."""

    category: str
    created: str
    """ISO 8601, UTC."""
    images: tuple[str, ...]
    """SHA-256 of each image."""
    replaced: dict[str, int]
    """How many prototypes of each table they took the place of."""
    centres: int = 0
    """How many centres the classifier got, for images that were beyond its reach."""
    before: str
    """SHA-256 of the ``bundle.json`` that this bundle was made from."""


class AddedCategory(Strict):
    """A category that joined the graphs after the export (``add-category --on-device``)."""

    category: str
    created: str
    """ISO 8601, UTC."""
    images: tuple[str, ...]
    """SHA-256 of each image that it was learnt from."""
    held_out: tuple[str, ...]
    """Of those that set its thresholds."""
    codes_of: str
    """The category whose codes and projection it has, without a share in its map."""
    before: str
    """SHA-256 of the ``bundle.json`` that this bundle was made from."""


class FormerThresholds(Strict):
    """Thresholds that others replaced: ``hvq-edge calibrate --undo`` brings them back."""

    replaced: str
    """When, ISO 8601, UTC."""
    why: str
    """What replaced them, in words."""
    thresholds: dict[Precision, dict[str, Threshold | None]]
    """``None``: there was none."""
    images: tuple[str, ...]
    """``threshold_images`` of that time."""


class BundleManifest(Strict):
    """The content of ``bundle.json``."""

    format: Literal["hvq-edge-bundle/1"] = "hvq-edge-bundle/1"
    hvq_edge_version: str
    created: str
    """ISO 8601, UTC."""
    checkpoint_sha256: str
    """Of the run's ``checkpoint.pt`` that was exported."""
    preset: str
    input_side: int
    """Of the frames, or of a tile where they are cut into several."""
    tiles: tuple[int, int] = (1, 1)
    """Rows and columns of tiles."""
    tile_overlap: int = 0
    """Cells that neighbouring tiles share."""
    levels: int
    codes: int
    categories: tuple[str, ...]
    """In the order of the category index. With mode ``one``: that single category."""
    category_mode: CategoryMode
    models: dict[Precision, str]
    """File name of the ONNX graph of each precision."""
    files: dict[str, FileRecord]
    graph: GraphRecord
    thresholds: dict[Precision, dict[str, Threshold]] = Field(default={})
    threshold_images: tuple[str, ...] = ()
    """SHA-256 of each image the thresholds were learnt from."""
    former_thresholds: tuple[FormerThresholds, ...] = ()
    """What the last changes of thresholds replaced, the latest last."""
    image_limits: ImageLimits | None = None
    """Of all categories together: for the check before it is known what a frame shows."""
    category_limits: dict[str, CategoryLimits] = Field(default={})
    """For the check after; empty in a bundle of an earlier version."""
    calibration: CalibrationRecord | None = None
    fp16: Fp16Record | None = None
    training: TrainingRecord | None = None
    """``None``: exported before it was kept."""
    learnt: tuple[LearntImages, ...] = ()
    """What ``hvq-edge learn`` has put in since the export, the latest last."""
    added: tuple[AddedCategory, ...] = ()
    """Categories that came after the export, in the order of their indices."""
    notes: tuple[str, ...] = ()

    @property
    def changed_since_export(self) -> bool:
        """Whether the graphs are not the run's model any more."""
        return bool(self.learnt or self.added)

    @property
    def learnt_since_export(self) -> set[tuple[str, str]]:
        """Category and SHA-256 of each image that the graphs have learnt from since."""
        records: tuple[LearntImages | AddedCategory, ...] = (*self.learnt, *self.added)
        return {(one.category, image) for one in records for image in one.images}

    @property
    def tiling(self) -> Tiling:
        """How a frame is cut into tiles."""
        return Tiling(self.input_side, *self.tiles, overlap=self.tile_overlap)

    @property
    def frame_shape(self) -> FrameShape:
        """Height and width of a frame in pixels."""
        return self.tiling.frame_shape


def record_of(path: Path) -> FileRecord:
    """Return the manifest record of an existing file."""
    return FileRecord(sha256=sha256_of(path), bytes=path.stat().st_size)


def digest_of_set(digests: Iterable[str]) -> str:
    """Return the SHA-256 over the sorted SHA-256 of images, one a line: the set's own."""
    return hashlib.sha256("".join(f"{one}\n" for one in sorted(digests)).encode()).hexdigest()


def write_manifest(folder: Path, manifest: BundleManifest) -> None:
    """Write ``bundle.json`` atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(folder / MANIFEST_NAME, manifest.model_dump_json(indent=2) + "\n")
