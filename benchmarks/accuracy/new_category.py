"""What a product added afterwards reaches, against training it with the others and a memory.

    python -m benchmarks.accuracy.new_category DATA --epochs 8

Each product of DATA is left out in turn, a network is trained on the others, and the product is
added from 10, 20, 50, 100 and all of its good images as `hvq-edge add-category` adds it. Test
images of the product are judged, the product known: image AUROC / pixel AUROC / defects found where
5 % of the good test images are rejected, in per cent; means over several draws of images.

- *added*: all that `add-category` learns;
- *prototypes alone*: nothing but the prototypes of the frozen features, with the scale and level of
  their distances;
- *memory*: nearest neighbours among the same features (nearest_neighbour.py), level subtracted;
- with --parts, *codes stay where they start* and *projection of the others*: *added* without that
  part;
- *trained*: one training of all products together, with as many images of this one. A training
  each, so it is done for the numbers of images named by --trained alone.

A second table says what becomes of the choice of the product by the graph: good test images of the
new product that are known as such, held-out images of the others that are taken for it, and the
median margins of both.

What is finished is kept under --out and skipped the next time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.accuracy.ablations import make_plan
from benchmarks.accuracy.added_products import (
    ADDED,
    ALL,
    CLASSIFIER,
    TOGETHER,
    VARIANTS,
    Bench,
    classified,
    numbers_of,
    trained_together,
    ways_of,
)
from benchmarks.markdown_table import markdown_table
from hvq_edge.cli.console import progress_bars
from hvq_edge.common.atomic import write_text
from hvq_edge.errors import HvqEdgeError
from hvq_edge.evaluation.table import percent
from hvq_edge.run.settings import load_settings

COUNTS = (10, 20, 50, 100)
"""Good images of the new product, those for its threshold among them."""


def run(
    bench: Bench,
    counts: Sequence[int],
    together: Sequence[int],
    draws: int,
    only: Sequence[str],
    *,
    parts: bool = False,
) -> dict[str, dict[str, float | None]]:
    """Do what is not done yet; return all numbers by ``product/count/draw/way``."""
    path = bench.folder / "numbers.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    names = [name for name in bench.plan.categories if not only or name in only]
    for place, name in enumerate(names, start=1):
        k = bench.plan.categories.index(name)
        product = bench.products[k]
        for count in counts:
            if count > len(product.good):
                continue
            for seed in range(1 if count == ALL else draws):
                key = f"{name}/{count}/{seed}"
                wanted = (ADDED, *(VARIANTS if parts else ()))
                if any(f"{key}/{way}" not in found for way in wanted):
                    for way, learnt in ways_of(bench, k, count, seed, parts=parts):
                        found[f"{key}/{way}"] = numbers_of(product, learnt)
                if count in together and seed == 0 and f"{key}/{TOGETHER}" not in found:
                    learnt = trained_together(bench, k, count, seed)
                    found[f"{key}/{TOGETHER}"] = numbers_of(product, learnt)
                if seed == 0 and f"{key}/{CLASSIFIER}" not in found:
                    found[f"{key}/{CLASSIFIER}"] = classified(bench, k, count, seed)
                write_text(path, json.dumps(found, indent=1) + "\n")
        bench.on_progress("products", place, len(names))
    return found


def table(found: Mapping[str, Mapping[str, float | None]], categories: Sequence[str]) -> str:
    """A line a product and number of images, then the means over the products."""
    cells: dict[tuple[str, int], dict[str, list[Mapping[str, float | None]]]] = {}
    for key, numbers in found.items():
        name, images, _, way = key.split("/")
        if way == CLASSIFIER:
            continue
        cells.setdefault((name, int(images)), {}).setdefault(way, []).append(numbers)
    ways = list(dict.fromkeys(way for own in cells.values() for way in own))
    counts = sorted({count for _, count in cells}, key=lambda count: (count == ALL, count))
    lines = []
    for name in categories:
        for count in counts:
            own = cells.get((name, count))
            if own:
                lines.append([name, _count(count), *(_cell([own.get(way, [])]) for way in ways)])
    for count in counts:
        each = [cells[name, count] for name in categories if (name, count) in cells]
        if len(each) > 1:
            told = [
                _cell([own[way] for own in each]) if all(way in own for own in each) else "–"
                for way in ways
            ]
            lines.append([f"mean of {len(each)}", _count(count), *told])
    return markdown_table(["product", "images", *ways], lines)


def classifier_table(found: Mapping[str, Mapping[str, float | None]]) -> str:
    """A line a product and number of images: what a classifier makes of them."""
    headings = ["product", "images", "good known", "others taken for it", "margin", "of others"]
    lines = []
    for key, numbers in found.items():
        name, count, _, way = key.split("/")
        if way == CLASSIFIER:
            shares = [percent(numbers[field]) for field in ("known", "taken")]
            margins = [f"{numbers[field]:.2f}" for field in ("margin", "margin of others")]
            lines.append([name, _count(int(count)), *shares, *margins])
    return markdown_table(headings, lines)


def _count(count: int) -> str:
    return "all" if count == ALL else str(count)


def _cell(products: Sequence[Sequence[Mapping[str, float | None]]]) -> str:
    """``image / pixel / recall`` in per cent: means over draws, then over products."""
    if not all(products):
        return "–"
    said = []
    for field in ("image", "pixel", "recall"):
        means = []
        for draws in products:
            values = [one[field] for one in draws]
            known = [value for value in values if value is not None]
            if known:
                means.append(statistics.mean(known))
        said.append(percent(statistics.mean(means)) if means else "–")
    return " / ".join(said)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is not finished and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of images with test images")
    parser.add_argument("--out", type=Path, default=Path("runs/new-category"))
    parser.add_argument("--preset", default="tiny", choices=["tiny", "edge"])
    parser.add_argument("--settings", type=Path, help="TOML file; what networks are trained with")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--images", type=int, nargs="+", default=[*COUNTS, ALL], help="0: all")
    parser.add_argument(
        "--trained", type=int, nargs="*", default=[ALL], help="numbers of images; a training each"
    )
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--parts", action="store_true", help="what each part learnt is worth")
    parser.add_argument("--only", nargs="+", default=[], metavar="PRODUCT")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings(given.preset, given.settings, training={"epochs": given.epochs})
        with progress_bars() as bars:
            plan = make_plan(given.data, given.out, settings, bars)
            bench = Bench(plan, given.out, bars)
            found = run(
                bench, given.images, given.trained, given.draws, given.only, parts=given.parts
            )
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    print(table(found, plan.categories))
    print(f"\nThe product chosen by the classifier\n\n{classifier_table(found)}")


if __name__ == "__main__":
    main()
