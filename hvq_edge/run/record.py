"""The record of a training run, ``run.json``: settings, categories, data split, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hvq_edge.common.atomic import write_text
from hvq_edge.common.records import Strict, read_record
from hvq_edge.common.wording import counted
from hvq_edge.errors import DatasetError, RunError
from hvq_edge.run.category_change import CategoryChange
from hvq_edge.run.latest import BUNDLE_FOLDER as BUNDLE_FOLDER
from hvq_edge.run.latest import DEFAULT_RUN, OR_DEMO
from hvq_edge.run.latest import RECORD_NAME as RECORD_NAME
from hvq_edge.run.settings import Settings
from hvq_edge.verdict.image_limits import CategoryLimits, ImageLimits

CHECKPOINT_NAME = "checkpoint.pt"
REPORT_NAME = "report.html"

ImageUse = Literal["fit", "held_out"]


class RecordedImage(Strict):
    """One image that a run was trained with."""

    path: str
    """Relative to ``RunRecord.data``, with forward slashes; absolute where it lies elsewhere."""
    category: str
    sha256: str


class KnownDefect(RecordedImage):
    """One defective training image."""

    defect: str
    """Its kind, as its folder is called."""
    mask: str | None = None
    """Path of its mask, as ``path``."""
    score: float | None = None
    """What the float32 model gives it, judged by a metric that was not fitted to it."""


class KnownDefectUse(Strict):
    """What a category's known defects were used for."""

    images: int
    kinds: int
    unsorted: bool
    """Whether they lie in ``defective`` alone, which tells no kinds apart."""
    share: float
    """Of their moment in the metric; 0: they changed nothing."""
    power: float
    """That the moment is raised to."""
    found_without: int
    """Of them above the threshold of 5 % expected false rejects, without their use."""
    found: int
    """The same with it, by cross-validation."""

    @property
    def sentence(self) -> str:
        """What was done, for the user."""
        count = counted(self.images, "known defect")
        if not self.share:
            why = "cross-validation bears out no use of them"
            if self.kinds == 1 and not self.unsorted:
                why = "they are of one kind, which says nothing of others"
            return f"{count} changed nothing, for {why}: {self.found} are found."
        return (
            f"{count} weight the metric: by cross-validation {self.found} of them are found, "
            f"{self.found_without} without."
        )


class ImageRecord(RecordedImage):
    """One good training image and what it was used for."""

    use: ImageUse
    """``fit``: weights, codebooks, statistics and INT8 ranges. ``held_out``: thresholds."""


class RunRecord(Strict):
    """The content of ``run.json``."""

    format: Literal["hvq-edge-run/2"] = "hvq-edge-run/2"
    hvq_edge_version: str
    created: str
    settings: Settings
    categories: tuple[str, ...]
    """Names in the order of the category index."""
    backbone_weights: str
    """Where the backbone's weights came from, with their SHA-256."""
    data: str | None
    """Absolute path of the training data; ``None`` for a loaded released checkpoint."""
    images: tuple[ImageRecord, ...] = ()
    known_defects: tuple[KnownDefect, ...] = ()
    known_defects_used: dict[str, KnownDefectUse] = Field(default={})
    """By category, of those with enough of them."""
    held_out_from: dict[str, str] = Field(default={})
    """Where held-out images were taken that are no random share of the others, by category."""
    image_limits: ImageLimits | None = None
    category_limits: dict[str, CategoryLimits] = Field(default={})
    checkpoint_sha256: str | None = None
    """``None`` until training has finished."""
    epochs_done: int = 0
    metrics: dict[str, float] = Field(default={})
    """Last training losses and seconds by stage."""
    changes: tuple[CategoryChange, ...] = ()
    """Of the categories since the training, the oldest first."""


def read_run(run: Path, *, finished: bool = True) -> RunRecord:
    """Read a run's record.

    Args:
        run: the run's folder.
        finished: insist that training has finished.

    Raises:
        RunError: no run there, another format, or not finished.
    """
    path = run / RECORD_NAME
    record = read_record(
        path,
        RunRecord,
        RunError,
        kind="a run record",
        unread=lambda error: f"no training run at {run}: {path} cannot be read ({error.strerror})",
        next_step=where_runs_come_from(run),
        again="train again with this version",
    )
    if finished and record.checkpoint_sha256 is None:
        raise RunError(
            f"the training run {run} has not finished.",
            next_step=f"run hvq-edge train --resume --out {run}",
        )
    return record


def where_runs_come_from(run: Path, name_it: str = "name the run's folder") -> str:
    """Say what to do where there is no run.

    Args:
        run: where one was looked for.
        name_it: what else may be named there.
    """
    if (run / "bundle.json").is_file():
        around = f", {run.parent}" if (run.parent / RECORD_NAME).is_file() else ""
        return f"{run} is a bundle: name the folder of its run{around}"
    if run != DEFAULT_RUN:
        return f"run hvq-edge train --data DIR, or {name_it}"
    if any(run.parent.glob(f"*/{RECORD_NAME}")):
        return (
            "no training in runs has finished yet: wait for it, or go on with hvq-edge train "
            f"--resume, or {name_it}"
        )
    return f"run hvq-edge train --data DIR, or {OR_DEMO}; or {name_it}"


def recorded_data(run: Path) -> Path:
    """Return the folder of images that a finished run was trained on.

    Raises:
        RunError: no run there, another format, or not finished.
        DatasetError: the run has none on record.
    """
    recorded = read_run(run).data
    if recorded is None:
        raise DatasetError(
            f"the run {run} has no images on record.",
            next_step="give a folder with test images with --data DIR",
        )
    return Path(recorded)


def write_run(run: Path, record: RunRecord) -> None:
    """Write ``run.json`` atomically.

    Raises:
        OutputError: it cannot be written.
    """
    write_text(run / RECORD_NAME, record.model_dump_json(indent=2) + "\n")
