"""A kind of parts that no centre of the classifier reaches, called good: who is judged then.

    python -m benchmarks.accuracy.new_centre BUNDLE DATA

Products of DATA that the bundle does not know stand for the new kind, each in turn: some of their
good training images that are unlike every category are called good, drawn at random, and the
category that is nearest gets a centre at their mean, as `hvq-edge learn` gives it one. In per cent:
their good test images, those of the other products that the bundle does not know, and the bundle's
own test images that are judged, before and after; means over five draws.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.learnt import CENTRES
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.cli.console import progress_bars
from hvq_edge.common.progress import ProgressCallback
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_frame
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.table import percent
from hvq_edge.export.graph.view import GraphView
from hvq_edge.export.learn.grown import pooled

CALLED_GOOD = (1, 5, 10, 20)
DRAWS = 5
MOST = 40
"""Images of a product and use, taken evenly."""

Whole = NDArray[np.float32]
"""``[images, channels]``: what the classifier compares with its centres."""


class Reach:
    """The classifier of a bundle's float32 graph."""

    def __init__(self, path: Path) -> None:
        bundle = open_bundle(path)
        graph = onnx.load_from_string(bundle.read(bundle.manifest.models["fp32"]))
        self.categories, self._shape = bundle.manifest.categories, bundle.manifest.frame_shape
        view, met = GraphView(graph), pooled(graph)
        centres, reach = view.constant(CENTRES), view.constant("classifier.reach")
        if met is None or centres is None or reach is None:
            raise HvqEdgeError("the bundle does not choose the category itself.")
        self.centres, self.reach = centres, float(reach)
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(met))
        self._session, self._met = onnxruntime.InferenceSession(graph.SerializeToString()), met

    def whole(self, paths: Sequence[Path], stage: str, on_progress: ProgressCallback) -> Whole:
        """Return what the classifier sees of images."""
        found = []
        for done, path in enumerate(paths[:: -(-len(paths) // MOST)], start=1):
            frame = read_frame(path, self._shape)[None]
            found.append(self._session.run([self._met], {"frames": frame})[0][0])
            on_progress(stage, done, min(MOST, len(paths)))
        return np.stack(found)

    def near(self, whole: Whole, more: Sequence[Whole] = ()) -> NDArray[np.bool_]:
        """Tell which images are within reach of a centre, of more ones too."""
        centres = np.concatenate([self.centres, *more])
        distance = np.linalg.norm(whole[:, None] - centres, axis=2).min(1)
        return np.asarray(distance <= self.reach)


def table(reach: Reach, train: dict[str, Whole], test: dict[str, Whole]) -> str:
    """A line a product and number of images that are called good."""
    unknown = [name for name in test if name not in reach.categories]
    own = np.concatenate([test[name] for name in test if name in reach.categories])
    lines = []
    for name in unknown:
        others = np.concatenate([test[other] for other in unknown if other != name])
        unlike = train[name][~reach.near(train[name])]
        sets = (test[name], others, own)
        lines.append([name, "none", *(percent(float(reach.near(one).mean())) for one in sets)])
        for count in CALLED_GOOD:
            if count > len(unlike):
                continue
            judged = []
            for seed in range(DRAWS):
                chosen = np.random.default_rng((seed, count)).permutation(len(unlike))[:count]
                centre = unlike[chosen].mean(0, keepdims=True)
                judged.append([reach.near(one, [centre]).mean() for one in sets])
            lines.append([name, str(count), *(percent(float(x)) for x in np.mean(judged, axis=0))])
    headings = ["kind", "called good", "others of it", "unknown products", "own test images"]
    return markdown_table(headings, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="folder of images with test images")
    given = parser.parse_args(arguments)
    try:
        reach, images = Reach(given.bundle), find_dataset(given.data).images
        with progress_bars() as bars:
            found: list[dict[str, Whole]] = [
                {
                    name: reach.whole([one.path for one in own], f"{split} {name}", bars)
                    for name in dict.fromkeys(one.category for one in images)
                    if (
                        own := [
                            one
                            for one in images
                            if (one.category, one.split) == (name, split) and one.good
                        ]
                    )
                }
                for split in ("train", "test")
            ]
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print(table(reach, *found))


if __name__ == "__main__":
    main()
