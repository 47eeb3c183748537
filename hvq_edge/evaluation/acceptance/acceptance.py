"""What a quality manager must know of a bundle before it judges parts, from what was measured.

Everything comes from files that other commands wrote. What is not there is an open point with the
command that makes it; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from hvq_edge.bench.report import BENCH_NAME, BenchReport, read_bench
from hvq_edge.bundle.integrity.content import look
from hvq_edge.bundle.judged_images import METRICS_NAME
from hvq_edge.bundle.manifest import FileRecord, Precision, digest_of_set
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import changed_by_thresholds, threshold_records
from hvq_edge.bundle.verification import (
    VERIFY_NAME,
    Verification,
    of_these_graphs,
    read_verification,
)
from hvq_edge.common.wording import counted
from hvq_edge.data.dataset import Dataset, find_dataset
from hvq_edge.errors import BundleError, HvqEdgeError
from hvq_edge.evaluation.acceptance.limits_of_use import limits_of_use
from hvq_edge.evaluation.acceptance.measured import Measured, measured_of
from hvq_edge.evaluation.acceptance.threshold_bound import (
    ThresholdBound,
    doubts_of,
    threshold_bound,
)
from hvq_edge.evaluation.known_images import hashes_of, known_images, run_around
from hvq_edge.evaluation.metrics.metrics_file import read_metrics
from hvq_edge.run.record import RunRecord


@dataclass(frozen=True)
class Step:
    """A command that measures; it asks for nothing but the bundle, its run and test images."""

    command: Literal["verify", "eval", "bench"]
    precision: Precision | None = None
    """Of ``eval``."""

    def __str__(self) -> str:
        return f"{self.command} {self.precision or ''}".rstrip()


@dataclass(frozen=True)
class OpenPoint:
    """Something that stands between this report and a signature."""

    what: str
    remedy: str = ""
    closed_by: Step | None = None
    """``None``: no command alone closes it."""


@dataclass(frozen=True)
class DataSet:
    """Images with one use."""

    use: str
    images: int
    digest: str
    """:func:`hvq_edge.bundle.manifest.digest_of_set` of them."""
    where: str


@dataclass
class Acceptance:
    """All that the report shows."""

    bundle: Bundle
    run: RunRecord | None
    made: str
    hvq_edge_version: str
    files: dict[str, FileRecord] = field(default_factory=dict)
    data: list[DataSet] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    """The one that is shown in detail first."""
    dataset: Dataset | None = None
    """Of that one, if it is still there."""
    thresholds: list[ThresholdBound] = field(default_factory=list)
    """Of every precision; those of the one that is shown in detail first."""
    verification: Verification | None = None
    bench: BenchReport | None = None
    limits: list[str] = field(default_factory=list)
    open_points: list[OpenPoint] = field(default_factory=list)

    @property
    def shown(self) -> Measured | None:
        """The results that are shown in detail."""
        return self.measured[0] if self.measured else None


def collect(target: Path) -> Acceptance:
    """Gather what is known of a bundle.

    Args:
        target: a bundle's folder, or a run's, whose ``bundle`` is then taken.

    Raises:
        BundleError: no bundle there.
    """
    if not target.exists():
        raise BundleError(
            f"there is no run and no bundle at {target}.",
            next_step="run hvq-edge train and hvq-edge export, or name the folder of a run or of a "
            "bundle",
        )
    bundle = open_bundle(target)
    run_folder = bundle.path.resolve().parent
    found = Acceptance(
        bundle=bundle,
        run=run_around(bundle),
        made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        hvq_edge_version=version("hvq-edge"),
        files=dict(bundle.manifest.files),
    )
    _look_at_files(found)
    _gather_measured(found, run_folder)
    _gather_data(found)
    _gather_thresholds(found)
    _gather_verification(found)
    _gather_bench(found)
    found.limits = limits_of_use(bundle.manifest, found.shown.record if found.shown else None)
    return found


def _look_at_files(found: Acceptance) -> None:
    try:
        faults = look(found.bundle).faults
    except BundleError as error:
        faults = (error.cause,)
    for fault in faults:
        found.open_points.append(
            OpenPoint(f"The bundle is not whole: {fault}.", "run hvq-edge export again")
        )


def _gather_measured(found: Acceptance, run_folder: Path) -> None:
    bundle, manifest = found.bundle, found.bundle.manifest
    paths = [*sorted(bundle.path.glob(f"eval-*/{METRICS_NAME}"))]
    of_model = found.run is not None and not manifest.changed_since_export
    if of_model and (run_folder / METRICS_NAME).is_file():
        paths.append(run_folder / METRICS_NAME)
    for path in paths:
        try:
            content = read_metrics(path)
        except HvqEdgeError as error:
            found.open_points.append(OpenPoint(error.cause, error.next_step))
            continue
        of_bundle = path.is_relative_to(bundle.path)
        if content.precision not in manifest.models or not content.evaluations:
            continue
        if of_bundle and content.created < manifest.created:
            found.open_points.append(
                OpenPoint(
                    f"{path.parent.name}/{METRICS_NAME} is older than the bundle.",
                    "run hvq-edge eval again",
                    next(Step("eval", one) for one in manifest.models if one == content.precision),
                )
            )
        found.measured.append(measured_of(bundle, content, of_bundle))
    # What was measured on the bundle itself comes first, the latest of it before all.
    found.measured.sort(key=lambda one: (one.of_bundle, one.created), reverse=True)
    measured = {one.precision for one in found.measured if one.of_bundle}
    for precision in manifest.models:
        if precision not in measured:
            found.open_points.append(
                OpenPoint(
                    f"{precision} was not measured on test images as it will run.",
                    f"run hvq-edge eval {bundle.path} --data DIR --precision {precision}",
                    Step("eval", precision),
                )
            )
    for one in found.shown.categories if found.shown else ():
        if one.defective_undecided:
            what = (
                f"{one.category}: the line decides nothing on {one.defective_undecided} of "
                f"{one.defective} defective test images: it neither rejects nor passes them."
            )
            remedy = (
                "look at them below, and let the line stop or sort out parts without a decision"
            )
            found.open_points.append(OpenPoint(what, remedy))
    if found.shown is not None:
        try:
            found.dataset = find_dataset(found.shown.data)
        except HvqEdgeError:
            found.open_points.append(
                OpenPoint(
                    f"The test images are no longer at {found.shown.data}: no examples are shown."
                )
            )


def _gather_data(found: Acceptance) -> None:
    manifest = found.bundle.manifest
    if found.run is None:
        found.open_points.append(
            OpenPoint(
                "The run that this was exported from is not beside the bundle: the training "
                "images are not known.",
                "run hvq-edge report on RUN/bundle in the run's own folder",
            )
        )
    else:
        where = found.run.data or "not recorded"
        for use, words in (("fit", "training"), ("held_out", "thresholds (held out)")):
            digests = [one.sha256 for one in found.run.images if one.use == use]
            if digests:
                found.data.append(DataSet(words, len(digests), digest_of_set(digests), where))
    if manifest.calibration is not None:
        digests = list(manifest.calibration.images)
        found.data.append(
            DataSet("INT8 ranges", len(digests), digest_of_set(digests), manifest.calibration.rule)
        )
    if found.shown is None or found.dataset is None:
        return
    read = list(hashes_of([image.path for image in found.dataset.test()]))
    hashes = [one for one in read if one is not None]
    if len(hashes) < len(read):
        what = f"{counted(len(read) - len(hashes), 'test image')} cannot be read."
        found.open_points.append(OpenPoint(what, "run hvq-edge data check"))
    found.data.append(DataSet("test", len(hashes), digest_of_set(hashes), str(found.shown.data)))
    known = set(hashes) & known_images(found.run, found.bundle)
    if known:
        found.open_points.append(
            OpenPoint(
                f"{counted(len(known), 'test image')} served training too: the test is not one.",
                "run hvq-edge data check",
            )
        )


def _gather_thresholds(found: Acceptance) -> None:
    manifest = found.bundle.manifest
    first: Precision = found.shown.precision if found.shown else next(iter(manifest.models))
    command = f"run hvq-edge calibrate {found.bundle.path} --good DIR"
    points: list[OpenPoint] = []
    for precision in (first, *(name for name in manifest.models if name != first)):
        learnt = threshold_records(manifest, precision)
        for name in manifest.categories:
            threshold = learnt.get(name)
            if threshold is None:
                what = f"{name} has no threshold in {precision}: its parts lead to no decision."
                points.append(OpenPoint(what, command))
                continue
            found.thresholds.append(threshold_bound(precision, name, threshold))
            points += [OpenPoint(*doubt) for doubt in doubts_of(name, threshold, command)]
    # What holds for several precisions, as where one calibration set them, is said once.
    found.open_points += dict.fromkeys(points)


def _gather_verification(found: Acceptance) -> None:
    bundle, step = found.bundle, Step("verify")
    command = f"run hvq-edge verify {bundle.path} --data DIR"
    path = bundle.path / VERIFY_NAME
    if not path.is_file():
        found.open_points.append(
            OpenPoint(
                "The exported graphs were not compared with the trained model.", command, step
            )
        )
        return
    try:
        verification = read_verification(path)
    except HvqEdgeError as error:
        found.open_points.append(OpenPoint(error.cause, command, step))
        return
    if not of_these_graphs(verification, bundle.manifest):
        found.open_points.append(
            OpenPoint("verify.json is of other graphs than these.", command, step)
        )
        return
    found.verification = verification
    unlike = changed_by_thresholds(verification, bundle.manifest)
    for name, fault in verification.faults:
        remedy = f"{command} --bisect"
        if name in unlike:  # no layer need be at fault
            remedy = f"run hvq-edge calibrate {bundle.path} --good DIR, then verify again"
        found.open_points.append(OpenPoint(f"verify did not pass {name} on {fault}.", remedy))


def _gather_bench(found: Acceptance) -> None:
    step = Step("bench")
    command = f"run hvq-edge bench {found.bundle.path} on the machine of the line"
    path = found.bundle.path / BENCH_NAME
    if not path.is_file():
        found.open_points.append(OpenPoint("How fast it is was not measured.", command, step))
        return
    try:
        found.bench = read_bench(path)
    except HvqEdgeError as error:
        found.open_points.append(OpenPoint(error.cause, command, step))
        return
    if found.bench.created < found.bundle.manifest.created:
        found.open_points.append(
            OpenPoint(f"{BENCH_NAME} is older than the bundle.", command, step)
        )
    for warning in found.bench.warnings:
        found.open_points.append(OpenPoint(f"Speed: {warning}.", command))
