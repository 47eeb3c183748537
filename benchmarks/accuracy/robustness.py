"""What another camera does to the verdicts: defects found and good parts rejected, disturbed.

    python -m benchmarks.accuracy.robustness BUNDLE DATA

Every test image of DATA is judged as it is and under each disturbance at three strengths
(disturbances.py): with the bundle's checks, choice of category and thresholds, as on the line.
*Found* is the share of the defective images that are rejected, *good rejected* that of the good
ones. An image without a decision is neither, and counted apart. Means are over the categories.

Prints a Markdown table and draws OUT/robustness.svg. What is finished is kept in
OUT/robustness.json: a run that was stopped goes on with the same command, and another bundle, or
the same with other thresholds, is measured anew.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.accuracy import disturbances
from benchmarks.accuracy.disturbances import DISTURBANCES, Disturb, Shot
from benchmarks.accuracy.robustness_chart import robustness_svg
from benchmarks.accuracy.robustness_result import CLEAN, RATES, Counts, Robustness, Row
from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.manifest import MANIFEST_NAME
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import thresholds_of
from hvq_edge.cli.console import print_json, progress_bars
from hvq_edge.common.atomic import sha256_of, write_text
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.common.records import kept_record
from hvq_edge.data.dataset import DatasetImage, find_dataset
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.errors import DatasetError, HvqEdgeError
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.open_engine import AUTO, choose, open_engine
from hvq_edge.verdict.calibrate.widened_limits import Pixels
from hvq_edge.verdict.image_checks import ImageChecks
from hvq_edge.verdict.judgement import Verdict, count_verdicts, judgements, refusal, rule

BATCH = 8
RESULT_NAME, CHART_NAME = "robustness.json", "robustness.svg"


class Line(NamedTuple):
    """What gives a verdict on an image."""

    engine: Engine
    checks: ImageChecks
    thresholds: Mapping[str, float]

    def verdicts(self, images: Sequence[DatasetImage], disturb: Disturb) -> Iterator[Verdict]:
        """Yield the verdicts on images of one category, each disturbed by its number among them.

        Raises:
            ImageError: one cannot be read.
        """
        info = self.engine.info
        told = info.category_mode == "input"
        for start in range(0, len(images), BATCH):
            frames = [
                fit_image(
                    disturb(read_image(image.path), Shot(number, max(info.frame_shape))),
                    info.frame_shape,
                )
                for number, image in enumerate(images[start : start + BATCH], start)
            ]
            index = info.categories.index(images[0].category)
            given = np.full(len(frames), index, np.int32) if told else None
            output = self.engine.run(np.stack(frames), given)
            for frame, judgement in zip(frames, judgements(output, info.categories), strict=True):
                refused = refusal(judgement, self.checks.fault(frame, judgement))
                yield rule(refused, judgement.category, judgement.score, self.thresholds).verdict


def measure(
    bundle: Bundle,
    data: Path,
    out: Path,
    *,
    precision: str = AUTO,
    threads: int | None = None,
    on_progress: ProgressCallback = silent,
) -> Robustness:
    """Judge the test images under every disturbance; what ``out`` holds of it is not done again.

    Args:
        bundle: with thresholds.
        data: folder with test images.
        out: folder of the result, which is written after every row.
        precision: of the bundle's graph, or ``auto``.
        threads: of the engine; ``None``: as the library has it.
        on_progress: told after each row.

    Raises:
        DatasetError: no test image of a category that the bundle knows.
        ImageError: one cannot be read.
        MissingCapability: a library is lacking, or what encodes H.264.
        OutputError: the result cannot be written.
    """
    choice = choose(bundle, precision, threads=threads)
    dataset = find_dataset(data)
    by_category = {
        name: images for name in bundle.manifest.categories if (images := dataset.test(name))
    }
    if not by_category:
        raise DatasetError(
            f"{data} has no test images of {', '.join(bundle.manifest.categories)}.",
            next_step="give the folder that the model was trained on",
        )
    with open_engine(
        bundle, precision=choice.precision, backend=choice.backend, threads=threads
    ) as engine:
        line = Line(engine, bundle.checks, thresholds_of(bundle, choice.precision))
        found = Robustness(
            key=_key(bundle, choice.precision, data),
            preset=bundle.manifest.preset,
            engine=f"{engine.info.backend} {engine.info.precision}, {engine.info.device}",
            images=sum(map(len, by_category.values())),
            rows=(),
        )
        kept = kept_record(out / RESULT_NAME, Robustness)
        done = kept.rows if kept is not None and kept.key == found.key else ()
        for number, (name, strength, disturb) in enumerate(STEPS):
            row = (
                done[number]
                if number < len(done)
                else Row(
                    disturbance=name,
                    strength=strength,
                    categories={
                        category: _counts(images, line.verdicts(images, disturb))
                        for category, images in by_category.items()
                    },
                )
            )
            found = found.model_copy(update={"rows": (*found.rows, row)})
            write_text(out / RESULT_NAME, found.model_dump_json(indent=1) + "\n")
            on_progress("Judging", number + 1, len(STEPS), f"{name} {strength}")
    return found


def table_of(found: Robustness) -> str:
    """Lay out a line a disturbance, in whose cells the three strengths stand."""
    categories = list(found.clean.categories)
    headings = ["disturbance", "strengths", *RATES]
    headings += [f"{name}, {rate}" for name in categories for rate in list(RATES)[:2]]
    lines = [
        [name, _in_turn([row.strength for row in rows])]
        + [_in_turn([_percent(row.mean(rate)) for row in rows]) for rate in RATES]
        + [
            _in_turn([_percent(RATES[rate](row.categories[category])) for row in rows])
            for category in categories
            for rate in list(RATES)[:2]
        ]
        for name, rows in {CLEAN: (found.clean,), **found.disturbed}.items()
    ]
    return markdown_table(headings, lines)


def _untouched(image: Pixels, _: Shot) -> Pixels:
    return image


STEPS: tuple[tuple[str, str, Disturb], ...] = (
    (CLEAN, "", _untouched),
    *(
        (name, strength, disturb)
        for name, strengths in DISTURBANCES.items()
        for strength, disturb in strengths.items()
    ),
)
"""Disturbance, strength and what does it, in the order of the rows."""


def _key(bundle: Bundle, precision: str, data: Path) -> str:
    parts = (sha256_of(bundle.path / MANIFEST_NAME), precision, data.resolve())
    code = sha256_of(Path(disturbances.__file__))
    return hashlib.sha256("\n".join(map(str, (*parts, code))).encode()).hexdigest()


def _counts(images: Sequence[DatasetImage], verdicts: Iterator[Verdict]) -> Counts:
    listed = list(zip(images, verdicts, strict=True))
    return Counts(
        good=count_verdicts(verdict for image, verdict in listed if image.good),
        defective=count_verdicts(verdict for image, verdict in listed if not image.good),
    )


def _in_turn(cells: Sequence[str]) -> str:
    return " / ".join(cells)


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, help="with thresholds")
    parser.add_argument("data", type=Path, help="folder with test images")
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"))
    parser.add_argument("--svg", type=Path, help=f"default: OUT/{CHART_NAME}")
    parser.add_argument("--precision", default=AUTO, help="default: what this machine would run")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    try:
        with progress_bars() as bars:
            found = measure(
                open_bundle(given.bundle),
                given.data,
                given.out,
                precision=given.precision,
                threads=given.threads,
                on_progress=bars,
            )
        write_text(given.svg or given.out / CHART_NAME, robustness_svg(found))
    except HvqEdgeError as error:
        parser.exit(error.exit_code, f"{error}\n")
    if given.json:
        print_json(found.model_dump(mode="json"))
    else:
        print(f"{found.preset}, {found.engine}, {found.images} test images (%)\n")
        print(table_of(found))


if __name__ == "__main__":
    main()
