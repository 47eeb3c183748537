"""A bundle against the PyTorch model it came from, on real images, through Polygraphy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.comparator import Comparator
from polygraphy.logger import G_LOGGER

from hvq_edge.bundle.manifest import Precision
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.bundle.verification import (
    VERIFY_NAME,
    Agreement,
    Bisection,
    ImageVerdicts,
    PrecisionVerdict,
    SideVerdict,
    Verification,
)
from hvq_edge.common.atomic import atomic_folder, write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.data.layouts.folders import DatasetImage
from hvq_edge.errors import BundleError, DatasetError
from hvq_edge.evaluation.acceptance.model_card import refresh_card
from hvq_edge.export.known_answers import learn_known_answers
from hvq_edge.export.verify.agreement import LIMITS, Outputs, compare
from hvq_edge.export.verify.bisect import bisect_precision
from hvq_edge.export.verify.polygraphy_files import (
    FOLDER,
    polygraphy_command,
    write_polygraphy_files,
)
from hvq_edge.export.verify.runners import (
    OF_THE_FILE,
    PROVIDER_RUNNERS,
    EngineRunner,
    library_version,
    runners_of,
)
from hvq_edge.run.record import read_run
from hvq_edge.runtime.cpu.onnxruntime_providers import ONNXRUNTIME, with_provider
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.runtime.known_answers import ANSWERS_NAME, CHECK_NAME, write_known_answers
from hvq_edge.verdict.judgement import judgements, refusal, rule

PYTORCH = "PyTorch"
DEFAULT_IMAGES = 96


def verify_bundle(
    bundle_path: Path,
    run: Path,
    data: Path,
    *,
    most_images: int = DEFAULT_IMAGES,
    max_changed: float | None = None,
    bisect: bool = False,
    providers: Sequence[str] = (),
    on_progress: ProgressCallback = silent,
) -> Verification:
    """Run every precision on every library that is here against PyTorch, write ``verify.json``.

    Beside it, ``verify/`` gets a few images with all outputs as Polygraphy's files, and known
    answers where the export left none. The bundle's model card follows.

    Args:
        bundle_path: the bundle's folder.
        run: folder of the run it was exported from.
        data: folder of images; its test images are used, good and defective.
        most_images: at most this many, balanced over categories and over good and defective.
        max_changed: share of the images whose decision may change; ``None``: the precision's.
        bisect: name the first tensor that differs of each precision that fails; of all where none
            fails.
        providers: of ONNX Runtime, that must run here (``cuda``); none: those that ``auto`` would
            try on this machine, where they run.
        on_progress: called after each image.

    Returns:
        What was written.

    Raises:
        MissingCapability: a provider that was named does not run here.
        SettingsError: there is no such provider.
        BundleError: the bundle is changed, or was exported from another checkpoint.
        DatasetError: no test images of the bundle's categories.
        OutputError: ``verify.json`` cannot be written.
    """
    named = [with_provider(ONNXRUNTIME, one) for one in providers]
    bundle = open_bundle(bundle_path)
    bundle_path = bundle.path
    record = read_run(run)
    if record.checkpoint_sha256 != bundle.manifest.checkpoint_sha256:
        raise BundleError(
            f"the bundle {bundle_path} was not exported from the run {run} as it is now "
            "(the checkpoints differ).",
            next_step=f"run hvq-edge export {run} again, or name the right run with --run",
        )
    categories = bundle.manifest.categories
    dataset = find_dataset(data)
    known = [image for image in dataset.test() if image.category in categories]
    images = choose_images(known, most_images)
    if not images:
        raise DatasetError(
            f"{data} has no test images of {', '.join(categories)}.",
            next_step="name a folder with test images of the model's categories",
        )

    mode = bundle.manifest.category_mode
    tested, not_run = runners_of(bundle, named)
    torch_runner = EngineRunner(
        PYTORCH, partial(TorchEngine, run, device="cpu", bundle=bundle), mode != "auto"
    )
    every = (*record.categories, *(one.category for one in bundle.manifest.added))
    feeds = [_feed(bundle, image, every) for image in images]
    outputs: dict[str, list[Outputs]] = {PYTORCH: [], **{one.name: [] for one in tested}}
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        results = Comparator.run(
            [torch_runner, *(one.runner for one in tested)], data_loader=feeds, streaming=True
        )
        for done, result in enumerate(results, start=1):
            for name, iterations in result.items():
                outputs[name].append(_complete(iterations[0], feeds[done - 1], mode))
            on_progress("comparing", done, len(feeds))

    if mode == "one":  # PyTorch knows the category by its index among all of the run's
        outputs[PYTORCH] = [
            {**output, "category": np.zeros(1, np.int32)} for output in outputs[PYTORCH]
        ]
    reference = outputs[PYTORCH]
    names = [image.path.relative_to(dataset.root).as_posix() for image in images]
    comparisons = []
    for one in tested:
        limits = LIMITS[one.precision]
        if max_changed is not None:
            limits = limits.model_copy(update={"decisions_changed": max_changed})
        decisions = list(
            _verdicts(bundle, one.precision, images, names, feeds, reference, outputs[one.name])
        )
        comparisons.append(
            compare(reference, outputs[one.name], decisions, one.precision, one.library, limits)
        )
    precisions = list(bundle.manifest.models)
    bisections: list[Bisection] = []
    if bisect:
        bad = {one.precision for one in comparisons if not one.passed}
        failed = [precision for precision in precisions if precision in bad]
        for done, precision in enumerate(failed or precisions, start=1):
            worst = _worst_image(precision, comparisons, outputs)
            bisections += bisect_precision(bundle, run, precision, feeds[worst], names[worst])
            on_progress("bisecting", done, len(failed or precisions))
    scale = max(float(np.abs(output["map"]).max()) for output in reference)
    verification = Verification(
        passed=all(comparison.passed for comparison in comparisons),
        checkpoint_sha256=bundle.manifest.checkpoint_sha256,
        data=str(data.resolve()),
        images=len(images),
        models={
            precision: bundle.manifest.files[name].sha256
            for precision, name in bundle.manifest.models.items()
        },
        precisions={
            one: _precision_verdict(
                [row for row in comparisons if row.precision == one and row.runner in OF_THE_FILE]
            )
            for one in precisions
        },
        providers={
            backend: {row.precision: _precision_verdict([row]) for row in rows}
            for backend, runner in PROVIDER_RUNNERS.items()
            if (rows := [row for row in comparisons if row.runner == runner])
        },
        comparisons=tuple(comparisons),
        not_run=tuple(not_run),
        libraries={one.library: library_version(one.library) for one in tested},
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        commands={
            precision: polygraphy_command(bundle, precision, scale, PYTORCH)
            for precision in bundle.manifest.models
        },
        bisections=tuple(bisections),
    )
    with atomic_folder(bundle_path / FOLDER) as folder, G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        write_polygraphy_files(folder, bundle, feeds, outputs)
        if ANSWERS_NAME not in bundle.manifest.files:  # an earlier export, or one without images
            answers = learn_known_answers(
                bundle, run, [(image.path, image.category) for image in images], on_progress
            )
            if answers is not None:
                write_known_answers(folder / Path(CHECK_NAME).name, answers)
    write_text(bundle_path / VERIFY_NAME, verification.model_dump_json(indent=2) + "\n")
    refresh_card(bundle_path, create=True)
    return verification


def choose_images(images: Sequence[DatasetImage], most: int) -> list[DatasetImage]:
    """Choose images in turn from every category's good and defective ones."""
    groups: dict[tuple[str, bool], list[DatasetImage]] = {}
    for image in images:
        groups.setdefault((image.category, image.good), []).append(image)
    chosen: list[DatasetImage] = []
    turn = 0
    while len(chosen) < min(most, len(images)):
        for group in groups.values():
            if turn < len(group) and len(chosen) < most:
                chosen.append(group[turn])
        turn += 1
    return chosen


def _feed(bundle: Bundle, image: DatasetImage, all_categories: Sequence[str]) -> dict[str, Any]:
    # Runners take the inputs they have; PyTorch takes the category in every mode but auto.
    feed: dict[str, NDArray[Any]] = {
        "frames": read_frame(image.path, bundle.manifest.frame_shape)[None]
    }
    if bundle.manifest.category_mode != "auto":
        feed["category"] = np.array([all_categories.index(image.category)], np.int32)
    return feed


def _complete(outputs: Any, feed: dict[str, NDArray[Any]], mode: str) -> dict[str, NDArray[Any]]:  # noqa: ANN401
    # ONNX Runtime gives what the graph gives: no category where it was known beforehand.
    complete = {name: np.array(outputs[name]) for name in outputs}
    if "category" not in complete:
        complete["category"] = np.zeros(1, np.int32) if mode == "one" else feed["category"]
    return complete


def _verdicts(
    bundle: Bundle,
    precision: Precision,
    images: Sequence[DatasetImage],
    names: Sequence[str],
    feeds: Sequence[Mapping[str, NDArray[Any]]],
    reference: Sequence[Outputs],
    other: Sequence[Outputs],
) -> Iterator[ImageVerdicts]:
    """Each side under its own thresholds: that is what is deployed."""
    sides = zip(images, names, feeds, reference, other, strict=True)
    for image, name, feed, ours, theirs in sides:
        yield ImageVerdicts(
            image=name,
            category=image.category,
            good=image.good,
            reference=_verdict(bundle, "fp32", feed, ours),
            other=_verdict(bundle, precision, feed, theirs),
        )


def _verdict(
    bundle: Bundle, precision: Precision, feed: Mapping[str, NDArray[Any]], outputs: Outputs
) -> SideVerdict:
    """Return what the line would say with these outputs."""
    (judgement,) = judgements(outputs, bundle.manifest.categories)
    refused = refusal(judgement, bundle.checks.fault(feed["frames"][0], judgement))
    thresholds = thresholds_of(bundle, precision)
    ruling = rule(refused, judgement.category, judgement.score, thresholds, precision)
    return SideVerdict(
        category=judgement.category,
        score=judgement.score,
        threshold=thresholds.get(judgement.category),
        verdict=ruling.verdict,
        reason=ruling.reason,
    )


def _worst_image(
    precision: Precision,
    comparisons: Sequence[Agreement],
    outputs: Mapping[str, Sequence[Outputs]],
) -> int:
    """Return the number of the image whose map is furthest from PyTorch's."""
    runner = max(
        (one for one in comparisons if one.precision == precision), key=lambda one: len(one.faults)
    ).runner
    errors = [
        float(np.abs(ours["map"].astype(np.float64) - theirs["map"]).max())
        for ours, theirs in zip(outputs[PYTORCH], outputs[f"{precision} {runner}"], strict=True)
    ]
    return int(np.argmax(errors))


def _precision_verdict(comparisons: Sequence[Agreement]) -> PrecisionVerdict:
    faults = tuple(f"{row.runner}: {fault}" for row in comparisons for fault in row.faults)
    return PrecisionVerdict(passed=not faults, faults=faults)
