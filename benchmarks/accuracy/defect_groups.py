"""How well rejects that look alike in the shift report are of one kind, by what describes a region.

    python -m benchmarks.accuracy.defect_groups BUNDLE DATA

Test defects of every product of DATA that has several kinds of them (folders) are grouped as the
shift report does it, product by product, and the groups are held against the kinds: adjusted Rand
index (0 by chance, 1 the same groups), number of groups, and purity: the share of images whose kind
is the most frequent one of their group, beside that of groups of the same sizes at random. *Named*
is what a person has of it: three images of each kind are judged, by chance and many times, and
groups get names as the report gives them; of the other images in groups that have a name, the share
that it fits, and the share of images that are in such a group.

The region of an image is the largest part of its mask, or the worst region that BUNDLE finds; then
only the images count that it rejects, as what they are.

- *shape*: size, length, fill and outline of the region;
- *contrast*: its colour and its scatter against what surrounds it (CIELAB);
- *texture*: local binary patterns, in it and against its surrounding;
- *gradients*: histograms of gradients of a square around it, 4x4 cells of 9 directions;
- *features*: what the graph holds against its prototypes, averaged over the region: as the report
  has it; *alike in length*: each token at length 1 first; *from the prototype*: its difference from
  the nearest prototype of the product instead.

Each block of a row has the same weight, and each of its numbers the same scatter.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from benchmarks.markdown_table import markdown_table
from hvq_edge import load
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.cli.console import progress_bars
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import read_image, read_mask
from hvq_edge.data.layouts.folders import DatasetImage
from hvq_edge.errors import HvqEdgeError
from hvq_edge.export.learn.region_features import RegionFeatures, token_weights
from hvq_edge.export.learn.tables import read_centres, tables_of
from hvq_edge.stream.report.groups import LEAST_GROUPED, alike, name_of

Vector = NDArray[np.float64]
Defects = tuple[NDArray[np.str_], list[dict[str, Vector]]]
"""Kinds of a product's defects, and their regions by block."""
ROWS: Mapping[str, Sequence[str]] = {
    "shape": ("shape",),
    "contrast": ("contrast",),
    "texture": ("texture",),
    "gradients": ("gradients",),
    "shape, contrast": ("shape", "contrast"),
    "shape, contrast, texture": ("shape", "contrast", "texture"),
    "features (the report)": ("features",),
    "features, alike in length": ("unit",),
    "from the prototype": ("away",),
    "from the prototype, alike in length": ("unit away",),
}
SCALED = ("shape", "contrast", "texture", "gradients")
"""Blocks of numbers that have units of their own."""
JUDGED = 3
DRAWS = 50
SIDE = 256
"""Pixels of a side of what shape, contrast and texture are measured on."""


class Looks:
    """Describes regions in every way.

    Args:
        bundle: whose graph gives features.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._features = RegionFeatures(bundle)
        self._tiling = bundle.manifest.tiling
        graph = onnx.load_from_string(bundle.read(bundle.manifest.models["fp32"]))
        self._centres = {
            name: read_centres(graph, tables_of(graph)[0], index)
            for index, name in enumerate(bundle.manifest.categories)
        }

    def __call__(
        self, image: NDArray[np.uint8], category: str, contour: NDArray[np.int32]
    ) -> dict[str, Vector]:
        """Describe a region, by block."""
        tokens = self._features.tokens(image, category)
        centres = self._centres[category]
        nearest = (np.square(centres).sum(1) - 2 * tokens @ centres.T).argmin(1)
        away = tokens - centres[nearest]
        found = {"features": tokens, "unit": _unit(tokens), "away": away, "unit away": _unit(away)}
        weights = token_weights(contour, image.shape[:2], self._tiling)
        averages = {name: np.asarray(weights @ each, np.float64) for name, each in found.items()}
        return {**averages, **measured(image, contour)}


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def measured(image: NDArray[np.uint8], contour: NDArray[np.int32]) -> dict[str, Vector]:
    """Return what can be measured in pixels: shape, contrast, texture and gradients."""
    scale = np.array([SIDE / image.shape[1], SIDE / image.shape[0]])
    outline = np.rint((contour + 0.5) * scale - 0.5).astype(np.int32)
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    inside = np.zeros((SIDE, SIDE), np.uint8)
    cv2.drawContours(inside, [outline[:, None]], -1, 1, cv2.FILLED)
    area = int(inside.sum())
    reach = max(5, int(np.sqrt(area) / 2))
    around = cv2.dilate(inside, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) - inside
    if not around.any():
        around = np.ones_like(inside)
    _, sides, _ = cv2.minAreaRect(outline)
    length, width = max(sides) + 1, min(sides) + 1
    edge = cv2.arcLength(outline, closed=True) + 1
    lab = cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    own, other = lab[inside > 0], lab[around > 0]
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    patterns = _patterns(grey)
    texture = [
        np.bincount(patterns[mask > 0], minlength=10) / mask.sum() for mask in (inside, around)
    ]
    shape = [np.log(area), np.log(length / width), area / (length * width), np.log(edge**2 / area)]
    low, high = (np.percentile(values[:, 0], (5, 95)) for values in (own, other))
    contrast = [own.mean(0) - other.mean(0), own.std(0), other.std(0), low - high]
    return {
        "shape": np.array(shape),
        "contrast": np.concatenate(contrast),
        "texture": np.concatenate([texture[0], texture[0] - texture[1]]),
        "gradients": _gradients(grey, outline),
    }


def _patterns(grey: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return each pixel's uniform local binary pattern, turned as one likes: 0 to 9."""
    padded = cv2.copyMakeBorder(grey, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    ring = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    height, width = grey.shape
    brighter = np.stack([padded[y : y + height, x : x + width] >= grey for y, x in ring], -1)
    changes = (brighter != np.roll(brighter, 1, -1)).sum(-1)
    return np.where(changes <= 2, brighter.sum(-1), 9)


def _gradients(grey: NDArray[np.uint8], outline: NDArray[np.int32]) -> Vector:
    left, top, width, height = cv2.boundingRect(outline)
    side = max(width, height, 32)
    padded = cv2.copyMakeBorder(grey, side, side, side, side, cv2.BORDER_REFLECT)
    x, y = left + width // 2 + side - side // 2, top + height // 2 + side - side // 2
    square = cv2.resize(padded[y : y + side, x : x + side], (64, 64), interpolation=cv2.INTER_AREA)
    along = cv2.Sobel(square, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(square, cv2.CV_32F, 0, 1)
    strength = np.hypot(along, down)
    direction = (np.arctan2(down, along) % np.pi / np.pi * 9).astype(int) % 9
    rows, columns = np.mgrid[:64, :64] // 16
    cells = np.zeros((4, 4, 9))
    np.add.at(cells, (rows, columns, direction), strength)
    return np.asarray(cells.ravel() / max(float(np.linalg.norm(cells)), 1e-9))


def mask_contour(image: DatasetImage, shape: tuple[int, ...]) -> NDArray[np.int32] | None:
    """Return the outline of the largest part of an image's mask; ``None``: it has none."""
    if image.mask is None:
        return None
    mask = read_mask(image.mask, shape[0], shape[1]).view(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(outlines, key=cv2.contourArea)[:, 0].astype(np.int32) if outlines else None


def joined(blocks: Sequence[str], found: Sequence[Mapping[str, Vector]]) -> Vector:
    """Return the vectors of images, ``[images, numbers]``."""
    parts = []
    for block in blocks:
        values = np.stack([one[block] for one in found])
        if block in SCALED:
            scatter = values.std(0)
            values = values / np.where(scatter > 1e-9, scatter, 1.0) / np.sqrt(values.shape[1])
        parts.append(values)
    return np.concatenate(parts, 1)


def numbers(groups: NDArray[np.int64], kinds: NDArray[np.str_], seed: int = 0) -> list[float]:
    """Hold groups against kinds: Rand index, groups, purity, by chance, named rightly, named."""
    rng = np.random.default_rng(seed)
    chance = np.mean([_purity(rng.permutation(groups), kinds) for _ in range(DRAWS)])
    fits, named = zip(*(_named(groups, kinds, rng) for _ in range(DRAWS)), strict=True)
    known = [one for one in fits if not np.isnan(one)]
    return [
        float(adjusted_rand_score(kinds, groups)),
        float(len(set(groups))),
        _purity(groups, kinds),
        float(chance),
        float(np.mean(known)) if known else np.nan,
        float(np.mean(named)),
    ]


def _purity(groups: NDArray[np.int64], kinds: NDArray[np.str_]) -> float:
    most = [Counter(kinds[groups == one]).most_common(1)[0][1] for one in np.unique(groups)]
    return sum(most) / len(kinds)


def _named(
    groups: NDArray[np.int64], kinds: NDArray[np.str_], rng: np.random.Generator
) -> tuple[float, float]:
    judged = np.zeros(len(kinds), bool)
    for kind in sorted(set(kinds)):
        own = np.flatnonzero(kinds == kind)
        judged[rng.permutation(own)[:JUDGED]] = True
    names = {one: name_of(Counter(kinds[judged & (groups == one)])) for one in np.unique(groups)}
    rest = np.flatnonzero(~judged)
    known = [names[groups[one]] == kinds[one] for one in rest if names[groups[one]]]
    return float(np.mean(known)) if known else np.nan, len(known) / max(len(rest), 1)


def measure(
    bundle: Path, data: Path, on_progress: ProgressCallback = silent
) -> dict[str, dict[str, Defects]]:
    """Describe the regions of all defects: by where regions come from and product, with kinds."""
    opened = open_bundle(bundle)
    looks = Looks(opened)
    defects = [one for one in find_dataset(data).images if one.split == "test" and not one.good]
    kinds: dict[str, set[str]] = {}
    for one in defects:
        kinds.setdefault(one.category, set()).add(one.defect)
    wanted = [
        one
        for one in defects
        if len(kinds[one.category]) > 1 and one.category in opened.manifest.categories
    ]
    found: dict[str, dict[str, list[tuple[str, dict[str, Vector]]]]] = {"mask": {}, "model": {}}
    with load(opened, precision="fp32") as model:
        for done, one in enumerate(wanted, start=1):
            image = read_image(one.path)
            result = model.predict(image)
            contours = {"mask": mask_contour(one, image.shape)}
            if result.decision.regions and result.category == one.category:
                contours["model"] = result.decision.regions[0].contour
            for source, contour in contours.items():
                if contour is not None:
                    seen = looks(image, one.category, contour)
                    found[source].setdefault(one.category, []).append((one.defect, seen))
            on_progress("regions", done, len(wanted))
    return {
        source: {
            category: (np.array([kind for kind, _ in own]), [seen for _, seen in own])
            for category, own in of_source.items()
        }
        for source, of_source in found.items()
    }


def tables(
    found: Mapping[str, Mapping[str, Defects]],
) -> str:
    """A table for each source of regions: means over the products, and the index of each."""
    said = []
    for source, products in found.items():
        lines = []
        for row, blocks in ROWS.items():
            each = [
                numbers(alike(joined(blocks, seen)), kinds) for kinds, seen in products.values()
            ]
            mean = np.mean(each, 0)
            lines.append(
                [
                    row,
                    " / ".join(f"{one[0]:.2f}" for one in each),
                    f"{mean[0]:.2f}",
                    " / ".join(f"{one[1]:.0f}" for one in each),
                    f"{100 * mean[2]:.0f} ({100 * mean[3]:.0f})",
                    f"{100 * mean[4]:.0f} of {100 * mean[5]:.0f}",
                ]
            )
        counts = ", ".join(
            f"{name} {len(kinds)} of {len(set(kinds))} kinds"
            for name, (kinds, _) in products.items()
        )
        headings = ["described by", "index", "mean", "groups", "purity (chance)", "named"]
        alone = [
            len(set(alike(joined(("features",), own))))
            for kinds, seen in products.values()
            for own in (
                [one for one, its in zip(seen, kinds, strict=True) if its == kind]
                for kind in sorted(set(kinds))
            )
            if len(own) >= LEAST_GROUPED
        ]
        said.append(
            f"Regions of the {source}: {counts}\n\n{markdown_table(headings, lines)}\n\n"
            f"A kind alone, by features: {min(alone)} to {max(alone)} groups"
        )
    return "\n\n".join(said)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="folder of images with test images of kinds")
    given = parser.parse_args(arguments)
    try:
        with progress_bars() as bars:
            found = measure(given.bundle, given.data, bars)
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print(tables(found))


if __name__ == "__main__":
    main()
