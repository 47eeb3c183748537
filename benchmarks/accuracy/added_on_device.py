"""A product added to a bundle without PyTorch, against one added to the run.

    python -m benchmarks.accuracy.added_on_device RUN DATA --category magnetic_tile --images 20 50

Good training images of a product that the run does not know are drawn at random and added with
`hvq-edge add-category --on-device` to the run's bundle, and with `hvq-edge add-category` to a run.
The test images of the product are judged, the graph choosing the product as on the line: AUROC /
defects found where 5 % of the good test images are rejected; and what the bundle's own thresholds
make of them. The run's model is judged in float32 on PyTorch. All in per cent. What is finished is
kept under --out and skipped the next time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.cli.console import progress_bars
from hvq_edge.common.atomic import write_text
from hvq_edge.common.progress import ProgressCallback
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.layouts.folders import DatasetImage
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.metrics.image_metrics import auroc, recall_at
from hvq_edge.evaluation.table import percent
from hvq_edge.export.learn.add_to_bundle import add_to_bundle
from hvq_edge.export.learn.judged import JudgedImage, Outcome, judge, opened
from hvq_edge.run.record import BUNDLE_FOLDER
from hvq_edge.runtime.cpu.torch_engine import TorchEngine
from hvq_edge.training.categories.change import add_category
from hvq_edge.verdict.image_checks import ImageChecks
from hvq_edge.verdict.judgement import rule

RUN = "run"
"""The way that has PyTorch."""
RATE = 0.05


def run(
    base: Path, images: Sequence[DatasetImage], name: str, count: int, on_progress: ProgressCallback
) -> dict[str, dict[str, Any]]:
    """Add a product in both ways; return what its test images say, by way or precision."""
    train = [one.path for one in images if one.split == "train" and one.good]
    chosen = np.random.default_rng((0, count)).permutation(len(train))[:count]
    tested = [
        JudgedImage(one.path, one.path.name, name, one.good, "", "")
        for one in images
        if one.split == "test"
    ]
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        good = Path(scratch) / "good"
        good.mkdir()
        for number in chosen:
            shutil.copy(train[number], good)
        out = Path(scratch) / "bundle"
        made = add_to_bundle(base / BUNDLE_FOLDER, name, good, out, on_progress=on_progress).bundle
        for precision in made.manifest.models:
            with opened(made, precision, "auto") as engine:
                outcomes = judge(engine, made.checks, tested, on_progress, f"test {precision}")
            found[precision] = _numbers(tested, outcomes, thresholds_of(made, precision), name)
        add_category(base, Path(scratch) / "run", name, good, on_progress=on_progress)
        with TorchEngine(Path(scratch) / "run", device="cpu") as model:
            outcomes = judge(model, ImageChecks(None, {}), tested, on_progress, "test run")
        found[RUN] = _numbers(tested, outcomes, {}, name)
    return found


def _numbers(
    tested: Sequence[JudgedImage],
    outcomes: Sequence[Outcome],
    thresholds: dict[str, float],
    name: str,
) -> dict[str, Any]:
    scores = np.array([one.score for one in outcomes])
    defective = np.array([not one.good for one in tested])
    own = np.array([one.category == name and one.margin >= 0 for one in outcomes])
    verdicts = [rule(one.refused, one.category, one.score, thresholds).verdict for one in outcomes]
    rejected = np.array([one == "reject" for one in verdicts])
    undecided = np.array([one == "no_decision" for one in verdicts])
    return {
        "auroc": auroc(scores, defective),
        "recall": recall_at(scores, defective, RATE),
        "good judged as it": float(own[~defective].mean()),
        "good rejected": float(rejected[~defective].mean()),
        "good undecided": float(undecided[~defective].mean()),
        "found": float(rejected[defective].mean()),
        "defects undecided": float(undecided[defective].mean()),
    }


def table(found: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A line a product and number of images."""
    ways = list(dict.fromkeys(way for own in found.values() for way in own))
    reduced = [way for way in ways if way != RUN]
    headings = ["product", "images", *(f"on the device, {way}" for way in reduced), "with the run"]
    headings += [f"{what}, {way}" for way in reduced for what in ("good rejected", "defects found")]
    lines = []
    for key, own in found.items():
        name, count = key.rsplit("/", 1)
        ranked = [
            " / ".join(percent(own[way][what]) for what in ("auroc", "recall"))
            for way in (*reduced, RUN)
        ]
        decided = [
            percent(own[way][what]) for way in reduced for what in ("good rejected", "found")
        ]
        lines.append([name, count, *ranked, *decided])
    return markdown_table(headings, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not finished and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run with its bundle")
    parser.add_argument("data", type=Path, help="folder of images with test images")
    parser.add_argument("--category", nargs="+", required=True, help="products to add")
    parser.add_argument("--images", type=int, nargs="+", default=[20, 50])
    parser.add_argument("--out", type=Path, default=Path("runs/added-on-device"))
    given = parser.parse_args(arguments)
    path = given.out / "numbers.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    try:
        images = find_dataset(given.data).images
        with progress_bars() as bars:
            for count in given.images:
                for name in given.category:
                    if f"{name}/{count}" in found:
                        continue
                    own = [one for one in images if one.category == name]
                    found[f"{name}/{count}"] = run(given.run, own, name, count, bars)
                    write_text(path, json.dumps(found, indent=1) + "\n")
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print(table(found))


if __name__ == "__main__":
    main()
