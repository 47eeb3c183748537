"""How much of what INT8 changes is the chance of one file.

    python -m benchmarks.accuracy.int8_chance RUN            # 7 INT8 files
    python -m benchmarks.accuracy.int8_chance RUN --files 1  # the one that is exported, alone

The first file is as ``hvq-edge export --int8`` makes it. Each of the others leaves 12 % of its
layers in float, drawn at random: it rounds a little less, and otherwise. All judge the run's test
images, the category chosen by the graph, and are compared with the float32 graph: a change that
most files show is INT8's own, one that comes and goes with the layers is chance. Nothing is chosen
by this.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.accuracy.evidence import images_to_judge
from benchmarks.accuracy.int8 import float_graph
from benchmarks.markdown_table import markdown_table
from hvq_edge.calibration.int8 import calibrate_graph, to_int8
from hvq_edge.data.dataset import DatasetImage, find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.metrics.image_metrics import auroc
from hvq_edge.runtime.cpu.processor import processor_name

FLOAT_SHARE = 0.12
"""Of the INT8 layers, in each file but the first."""


def layers_of_file(number: int, exported: Sequence[str]) -> list[str]:
    """The INT8 layers of a file; number 0 has all that are exported."""
    draw = np.random.default_rng(number).random(len(exported))
    pairs = zip(exported, draw, strict=True)
    return [layer for layer, one in pairs if number == 0 or one > FLOAT_SHARE]


def image_aurocs(
    scores: NDArray[np.float32], images: Sequence[DatasetImage], categories: Sequence[str]
) -> NDArray[np.float64]:
    """Image AUROC of each category, in per cent; NaN where it is not defined."""
    found = []
    for category in categories:
        own = np.array([image.category == category for image in images])
        defective = np.array([not image.good for image in images])[own]
        area = auroc(scores[own], defective)
        found.append(np.nan if area is None else 100 * area)
    return np.array(found)


def measure(run: Path, files: int, threads: int) -> None:
    """Print the table of a run."""
    with tempfile.TemporaryDirectory() as scratch:
        source, record = float_graph(run, Path(scratch))
        shape, categories = source.frame_shape, source.categories
        images = images_to_judge(find_dataset(Path(str(record.data))), categories)
        ranges = calibrate_graph(source.path, source.calibration, shape)

        def judged(path: Path) -> NDArray[np.float64]:
            engine = source.opened(path, threads)
            scores = [engine.run(read_frame(one.path, shape)[None])["score"] for one in images]
            return image_aurocs(np.concatenate(scores), images, categories)

        reference = judged(source.path)
        changes = []
        for number in range(files):
            path = Path(scratch) / f"int8-{number}.onnx"
            layers = layers_of_file(number, source.exported)
            onnx.save(to_int8(source.graph, ranges, layers), path)
            changes.append(judged(path) - reference)
            path.unlink()
    print(f"{source.preset}, {len(images)} test images; {processor_name()}\n")
    rows = [["float32", *(f"{one:.2f}" for one in reference)]]
    rows.append(["as exported", *(f"{one:+.2f}" for one in changes[0])])
    if files > 1:
        mean, deviation = np.mean(changes, 0), np.std(changes, 0, ddof=1)
        rows.append([f"{files} files, mean", *(f"{one:+.2f}" for one in mean)])
        rows.append(["their standard deviation", *(f"{one:.2f}" for one in deviation)])
    print(markdown_table(["image AUROC", *categories], rows))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run of hvq-edge train")
    parser.add_argument("--files", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args(arguments)
    try:
        measure(given.run, given.files, given.threads)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
