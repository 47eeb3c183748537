"""A bundle against the PyTorch model it came from, on real pictures, through Polygraphy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator
from polygraphy.logger import G_LOGGER
from pydantic import BaseModel, ConfigDict

from hvq_edge.atomic import write_text
from hvq_edge.bundle import Bundle, Precision, open_bundle
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.folders import Picture
from hvq_edge.data.pictures import read_frame
from hvq_edge.errors import BundleError, DatasetError
from hvq_edge.export.agreement import Agreement, Outputs, compare
from hvq_edge.export.runners import EngineRunner
from hvq_edge.progress import ProgressCallback, silent
from hvq_edge.run_record import read_run
from hvq_edge.runtime.open_engine import VERIFY_NAME, open_engine
from hvq_edge.runtime.torch_engine import TorchEngine

PYTORCH = "PyTorch"
DEFAULT_PICTURES = 96


class PrecisionVerdict(BaseModel):
    """Whether a precision may be used: every runner of it passed."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    faults: tuple[str, ...]


class Verification(BaseModel):
    """The content of ``verify.json``."""

    model_config = ConfigDict(frozen=True)

    passed: bool
    checkpoint_sha256: str
    data: str
    pictures: int
    precisions: dict[Precision, PrecisionVerdict]
    comparisons: tuple[Agreement, ...]


def verify_bundle(
    bundle_path: Path,
    run: Path,
    data: Path,
    *,
    most_pictures: int = DEFAULT_PICTURES,
    on_progress: ProgressCallback = silent,
) -> Verification:
    """Run every precision on every CPU backend against PyTorch, and write ``verify.json``.

    Args:
        bundle_path: the bundle's folder.
        run: folder of the run it was exported from.
        data: folder of pictures; its test pictures are used, good and defective.
        most_pictures: at most so many, balanced over categories and over good and defective.
        on_progress: called after each picture.

    Returns:
        What was written.

    Raises:
        BundleError: the bundle is changed, or was exported from another checkpoint.
        DatasetError: no test pictures of the bundle's categories.
        OutputError: ``verify.json`` cannot be written.
    """
    bundle = open_bundle(bundle_path)
    record = read_run(run)
    if record.checkpoint_sha256 != bundle.manifest.checkpoint_sha256:
        raise BundleError(
            f"the bundle {bundle_path} was not exported from the run {run} as it is now "
            "(the checkpoints differ).",
            next_step=f"run hvq-edge export {run} again, or name the right run with --run",
        )
    categories = bundle.manifest.categories
    dataset = find_dataset(data)
    known = [picture for picture in dataset.test() if picture.category in categories]
    pictures = choose_pictures(known, most_pictures)
    if not pictures:
        raise DatasetError(
            f"{data} has no test pictures of {', '.join(categories)}.",
            next_step="name a folder with test pictures of the model's categories",
        )

    mode = bundle.manifest.category_mode
    runners = [EngineRunner(PYTORCH, partial(TorchEngine, run, device="cpu"), mode != "auto")]
    tested: dict[str, tuple[Precision, str]] = {}
    for precision in bundle.manifest.models:
        for backend in _backends():
            name = f"{precision} {backend}"
            tested[name] = (precision, backend)
            if backend == "ONNX Runtime":
                session = SessionFromOnnx(
                    str(bundle.model_file(precision)), providers=["CPUExecutionProvider"]
                )
                runners.append(OnnxrtRunner(session, name=name))
            else:
                opener = partial(open_engine, bundle, precision=precision, backend="openvino")
                runners.append(EngineRunner(name, opener, mode == "input"))

    feeds = [_feed(bundle, picture, record.categories) for picture in pictures]
    outputs: dict[str, list[Outputs]] = {runner.name: [] for runner in runners}
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        results = Comparator.run(runners, data_loader=feeds, streaming=True)
        for done, result in enumerate(results, start=1):
            for name, iterations in result.items():
                outputs[name].append(_complete(iterations[0], feeds[done - 1], mode))
            on_progress("comparing", done, len(feeds))

    reference = outputs[PYTORCH]
    if mode == "one":  # PyTorch knows the category by its index among all of the run's
        reference = [{**output, "category": np.zeros(1, np.int32)} for output in reference]
    names = [picture.path.relative_to(dataset.root).as_posix() for picture in pictures]
    comparisons = tuple(
        compare(
            reference,
            outputs[name],
            list(_verdicts(bundle, precision, names, reference, outputs[name])),
            precision,
            backend,
        )
        for name, (precision, backend) in tested.items()
    )
    verification = Verification(
        passed=all(comparison.passed for comparison in comparisons),
        checkpoint_sha256=bundle.manifest.checkpoint_sha256,
        data=str(data.resolve()),
        pictures=len(pictures),
        precisions={
            precision: _precision_verdict(precision, comparisons)
            for precision in bundle.manifest.models
        },
        comparisons=comparisons,
    )
    write_text(bundle_path / VERIFY_NAME, verification.model_dump_json(indent=2) + "\n")
    return verification


def choose_pictures(pictures: Sequence[Picture], most: int) -> list[Picture]:
    """Choose pictures in turn from every category's good and defective ones."""
    groups: dict[tuple[str, bool], list[Picture]] = {}
    for picture in pictures:
        groups.setdefault((picture.category, picture.good), []).append(picture)
    chosen: list[Picture] = []
    turn = 0
    while len(chosen) < min(most, len(pictures)):
        for group in groups.values():
            if turn < len(group) and len(chosen) < most:
                chosen.append(group[turn])
        turn += 1
    return chosen


def _backends() -> list[str]:
    from importlib.util import find_spec

    return ["ONNX Runtime", *(["OpenVINO"] if find_spec("openvino") else [])]


def _feed(bundle: Bundle, picture: Picture, all_categories: Sequence[str]) -> dict[str, Any]:
    # Runners take the inputs they have; PyTorch takes the category in every mode but auto.
    feed: dict[str, NDArray[Any]] = {
        "frames": read_frame(picture.path, bundle.manifest.input_side)[None]
    }
    if bundle.manifest.category_mode != "auto":
        feed["category"] = np.array([all_categories.index(picture.category)], np.int32)
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
    names: Sequence[str],
    reference: Sequence[Outputs],
    other: Sequence[Outputs],
) -> Iterator[tuple[str, bool, bool]]:
    """Each side under its own thresholds: that is what is deployed."""
    for name, ours, theirs in zip(names, reference, other, strict=True):
        rejects = []
        for outputs, kind in ((ours, "fp32"), (theirs, precision)):
            category = bundle.manifest.categories[int(outputs["category"][0])]
            thresholds = bundle.manifest.thresholds.get(kind, {})  # type: ignore[call-overload]
            threshold = thresholds.get(category)
            rejects.append(threshold is not None and float(outputs["score"][0]) > threshold.value)
        yield name, rejects[0], rejects[1]


def _precision_verdict(precision: Precision, comparisons: Sequence[Agreement]) -> PrecisionVerdict:
    faults = tuple(
        f"{comparison.runner}: {fault}"
        for comparison in comparisons
        if comparison.precision == precision
        for fault in comparison.faults
    )
    return PrecisionVerdict(passed=not faults, faults=faults)
