"""When drift is said: alarms while nothing changes, and before false rejects double.

    python -m benchmarks.accuracy.drift RUN DATA --rows FILE

Good images that the run did not learn from are judged by its bundle, clean (with a little noise
and JPEG of quality 90 to 98, six times each) and under rising light, blur, shift and colour. FILE
keeps what was measured. Lines are then drawn from these, with replacement: the calibration scores,
the parts that show what is usual, and all that follow, so that every line has its own calibration.

*Quiet*: lines on which nothing changes. *Ramps*: strength rises evenly over 2,000 parts; an alarm
counts from the ramp's first part, and so does the part at which twice as many good parts of the
pool are rejected as clean. *Steps*: parts from the change to the alarm. *Time*: a line's watch
beside its engine, in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.manifest import open_bundle
from hvq_edge.cli.console import messages
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import Pixels, blurred, brightened, jpeg, levels, moved, noisy, tinted
from hvq_edge.run.record import read_run
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.stream.drift.category import (
    CategoryWatch,
    PartSeen,
    references_of,
    scores_within,
    stride_of,
)
from hvq_edge.stream.drift.measures import IMAGE, MARGIN, SCORE, CodeUsage, image_measures, share_of
from hvq_edge.stream.drift.rank_tests import RankTests
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.judgement import judgements
from hvq_edge.verdict.likeness.look import look_at
from hvq_edge.verdict.placement import small_grey

CLEAN_COPIES = 6
CALIBRATION = 30
FALSE_REJECTS = 0.05
ONSET, RAMP = 1000, 2000
SIDE = 224

RAMPS: Mapping[str, tuple[str, Sequence[float], Callable[[Pixels, float], Pixels]]] = {
    "darker": (
        "{:.0%}",
        (-0.04, -0.08, -0.12, -0.16, -0.2, -0.3, -0.4),
        lambda image, share: brightened(image, share),
    ),
    "blur": (
        "{:g} px",
        (0.25, 0.5, 0.75, 1, 1.5, 2, 3),
        lambda image, pixels: blurred(image, *(pixels * n / SIDE for n in image.shape[1::-1])),
    ),
    "shift": (
        "{:.0%}",
        (0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1),
        lambda image, share: moved(image, share, share / 2),
    ),
    "warmer": (
        "{:.2%}",
        (0.0025, 0.005, 0.0075, 0.01, 0.0125, 0.015, 0.02),
        lambda image, share: tinted(image, share),
    ),
}
STEPS = {"darker": (2, 4), "blur": (3, 5), "shift": (1, 2), "warmer": (1, 2)}
"""Positions among the strengths."""


WANDERS = ((0.5, 10), (1, 10), (0.25, 100), (0.5, 100), (1, 100))


class Pool(NamedTuple):
    """What was measured of one category's images."""

    ramp: NDArray[np.str_]
    """Of each row; empty for a clean one."""
    strength: NDArray[np.int64]
    """Position among the ramp's strengths."""
    score: NDArray[np.float64]
    margin: NDArray[np.float64]
    image: NDArray[np.float64]
    """``[rows, measures]``."""
    codes: NDArray[np.int32]

    def rows(self, ramp: str = "", strength: int = 0) -> NDArray[np.int64]:
        """Return the rows of a strength that show a known part."""
        found = (self.ramp == ramp) & (self.strength == strength) & (self.margin >= 0)
        return np.flatnonzero(found)

    def part(self, row: int, time: float) -> PartSeen:
        """Return a row as a part that is seen."""
        score, margin = float(self.score[row]), float(self.margin[row])
        return PartSeen(time, score, margin, self.image[row], self.codes[row])


def gather(run: Path, data: Path) -> dict[str, Pool]:
    """Judge the good images that the run did not learn from, clean and on every ramp."""
    bundle = open_bundle(run / "bundle")
    record = read_run(run)
    held = [(i.category, data / i.path) for i in record.images if i.use == "held_out"]
    test = [i for i in find_dataset(data).images if i.split == "test" and i.good]
    images = held + [(i.category, i.path) for i in test]
    found: dict[str, dict[str, list[Any]]] = {}
    seed = 0
    with open_engine(bundle, precision="fp32") as engine:
        for done, (category, path) in enumerate(images, start=1):
            plain = levels(read_image(path))
            versions = [("", 0, plain)] * CLEAN_COPIES
            for ramp, (_, strengths, change) in RAMPS.items():
                versions += [(ramp, i, change(plain, s)) for i, s in enumerate(strengths)]
            kept = found.setdefault(category, {name: [] for name in Pool._fields})
            for ramp, strength, version in versions:
                seed += 1
                seen = jpeg(levels(noisy(version, 1.0, seed)), 90 + seed % 9)
                fitted = fit_image(seen, engine.info.input_side)
                (judged,) = judgements(engine.run(fitted[np.newaxis]), engine.info.categories)
                measures = image_measures(look_at(seen, fitted), small_grey(fitted))
                known = judged.margin if judged.category == category else -1.0
                row = (ramp, strength, judged.score, known, measures, judged.codes)
                for name, value in zip(Pool._fields, row, strict=True):
                    kept[name].append(value)
            messages.print(f"{done} of {len(images)} images", end="\r")
    return {
        category: Pool(*(np.array(values) for values in columns.values()))
        for category, columns in found.items()
    }


def threshold_of(pool: Pool) -> float:
    """Return the score that 5 % of the clean rows exceed."""
    return float(np.quantile(pool.score[pool.rows()], 1 - FALSE_REJECTS))


class Wander(NamedTuple):
    """Light that is never quite the same: brightness gets a slow random process added."""

    size: float = 0.0
    """Standard deviation, in standard deviations of the brightness of parts."""
    length: float = 1.0
    """Parts after which it has forgotten where it was (1/e)."""

    def over(
        self, parts: int, lines: int, spread: float, draw: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return it, ``[parts, lines]``."""
        kept = np.exp(-1 / self.length)
        news = draw.standard_normal((parts, lines)) * np.sqrt(1 - kept**2)
        news[0] = draw.standard_normal(lines)
        for part in range(1, parts):
            news[part] += kept * news[part - 1]
        return news * self.size * spread


STEADY = Wander()


def quiet(
    pool: Pool, lines: int, parts: int, limit: int, wander: Wander = STEADY
) -> NDArray[np.float64]:
    """Return when each line's tests first reach their limits, ``[lines, tests]``; else NaN."""
    draw = np.random.default_rng(limit)
    threshold, clean = threshold_of(pool), pool.rows()
    passing = clean[pool.score[clean] <= threshold]
    codes_levels = pool.codes.shape[1]
    measures = (SCORE, *IMAGE, MARGIN, *(f"codes {i}" for i in range(codes_levels)))
    settings, tables, references = DriftSettings(), [], []
    light = 1 + IMAGE.index("brightness")
    spread = float(pool.image[passing, light - 1].std())
    start = settings.reference_parts
    lit = wander.over(start + parts, lines, spread, draw)
    strides = np.ones(lines, np.int64)
    for number in range(lines):
        first = draw.choice(passing, settings.reference_parts)
        usage = CodeUsage(codes_levels)
        for row in first[: len(first) // 2]:
            usage.count(pool.codes[row])
        bits = np.stack([usage.surprise(pool.codes[row]) for row in passing])
        table = np.column_stack(
            (pool.score[passing], pool.image[passing], pool.margin[passing], bits)
        )
        tables.append(table)
        known = scores_within(
            table_of(pool.score[draw.choice(clean, CALIBRATION)].tolist()), threshold
        )
        rows = table[np.searchsorted(passing, first)]
        rows[:, light] += lit[:start, number]
        strides[number] = stride_of(rows[:, : 1 + len(IMAGE)])
        references += references_of(measures, _untied(rows, draw), known)
    tests = RankTests(references)
    limits = limit / np.array([share_of(name, codes_levels) for name in measures] * lines)
    every = np.stack(tables)
    reached = np.full(len(limits), np.nan)
    for part in range(1, parts + 1):
        values = every[np.arange(lines), draw.integers(len(passing), size=lines)]
        values[:, light] += lit[start + part - 1]
        values[part % strides != 0] = np.nan
        tests.take(_untied(values, draw).ravel())
        reached[np.isnan(reached) & (tests.evidence >= limits)] = part
    return reached.reshape(lines, -1)


def _untied(values: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    untied: NDArray[np.float64] = values + 1e-9 * draw.uniform(-1, 1, values.shape)
    return untied


class Found(NamedTuple):
    """The first alarms of one line after its change."""

    parts: float
    """From the change to the first alarm; infinite: none came."""
    words: str


def line(pool: Pool, ramp: str, seed: int, parts: int, step: int | None = None) -> Found:
    """Draw one line with a ramp, or with a step to one of its strengths."""
    draw = np.random.default_rng(seed)
    threshold, clean = threshold_of(pool), pool.rows()
    good = table_of(pool.score[draw.choice(clean, CALIBRATION)].tolist())
    watch = CategoryWatch("", pool.codes.shape[1], DriftSettings(), good, threshold)
    strengths = len(RAMPS[ramp][1])
    groups = [clean, *(pool.rows(ramp, i) for i in range(strengths))]
    for number in range(ONSET + parts):
        grown = max(number - ONSET, 0) / RAMP * strengths
        level = int(min(grown, strengths)) + int(draw.random() < grown % 1)
        if step is not None:
            level = step + 1 if number >= ONSET else 0
        group = groups[min(level, strengths)]
        if not len(group):
            break  # no image is taken for this category any more
        part = pool.part(int(draw.choice(group)), float(number))
        if part.score <= threshold and (alarms := watch.take(part)):
            return Found(number + 1 - ONSET, ", ".join(one.words for one in alarms))
    return Found(np.inf, "")


def doubling(pool: Pool, ramp: str) -> float:
    """Return the part of the ramp from which false rejects are twice as many as clean."""
    threshold, strengths = threshold_of(pool), len(RAMPS[ramp][1])
    for level in range(strengths):
        rows = np.flatnonzero((pool.ramp == ramp) & (pool.strength == level))
        lost = (pool.score[rows] > threshold) | (pool.margin[rows] < 0)
        if lost.mean() >= 2 * FALSE_REJECTS:
            return (level + 1) / strengths * RAMP
    return np.inf


def cost(run: Path, pool: Pool, data: Path) -> tuple[float, float]:
    """Return seconds a frame of the engine and of the watch: medians of turns."""
    bundle = open_bundle(run / "bundle")
    image = levels(read_image(find_dataset(data).images[0].path))
    clean, threshold = pool.rows(), threshold_of(pool)
    watch = CategoryWatch("", pool.codes.shape[1], DriftSettings(), None, threshold)
    times: list[tuple[float, float]] = []
    with open_engine(bundle, precision="fp32") as engine:
        fitted = fit_image(image, engine.info.input_side)
        look = look_at(image, fitted)
        for number in range(400):
            began = perf_counter()
            engine.run(fitted[np.newaxis])
            judged = perf_counter()
            image_measures(look, small_grey(fitted))
            watch.take(pool.part(int(clean[number % len(clean)]), float(number)))
            times.append((judged - began, perf_counter() - judged))
    engine_seconds, watch_seconds = np.median(times[150:], axis=0)
    return float(engine_seconds), float(watch_seconds)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run with its bundle")
    parser.add_argument("data", type=Path, help="the images it was trained on")
    parser.add_argument("--rows", type=Path, required=True, help="keeps what is measured, .npz")
    parser.add_argument("--seeds", type=int, default=5, help="lines a ramp and a step")
    parser.add_argument("--quiet-lines", type=int, default=10, help="lines without a change")
    parser.add_argument("--parts", type=int, default=100_000, help="of each of these")
    asked = parser.parse_args()
    if not asked.rows.exists():
        gathered = gather(asked.run, asked.data)
        flat = {
            f"{category}/{name}": values
            for category, pool in gathered.items()
            for name, values in pool._asdict().items()
        }
        np.savez_compressed(asked.rows, **flat)
    with np.load(asked.rows) as kept:
        names = sorted({key.partition("/")[0] for key in kept})
        pools = {name: Pool(*(kept[f"{name}/{field}"] for field in Pool._fields)) for name in names}
    _changes(pools, asked.seeds)
    engine_seconds, watch_seconds = cost(asked.run, pools[names[0]], asked.data)
    print(f"watch beside engine: {watch_seconds / engine_seconds:.1%} of its time\n")
    _quiet(pools, asked.quiet_lines, asked.parts)


def _changes(pools: Mapping[str, Pool], seeds: int) -> None:
    rows, steps = [], []
    for name, pool in pools.items():
        for ramp, (form, strengths, _) in RAMPS.items():
            found = [line(pool, ramp, seed, RAMP + 1000) for seed in range(seeds)]
            parts = [one.parts for one in found]
            middle = found[int(np.argsort(parts)[len(parts) // 2])]
            double = doubling(pool, ramp)
            before = sum(one < double for one in parts)
            rows.append(
                [
                    f"{ramp} to {form.format(strengths[-1])}, {name}",
                    f"{np.median(parts):.0f} ({min(parts):.0f} to {max(parts):.0f})",
                    f"{double:.0f}" if np.isfinite(double) else "never",
                    f"{before} of {seeds}",
                    middle.words,
                ]
            )
            for step in STEPS[ramp]:
                waits = [line(pool, ramp, seed, 2000, step).parts for seed in range(seeds)]
                said = f"{np.median(waits):.0f} ({min(waits):.0f} to {max(waits):.0f})"
                steps.append([f"{ramp}, {form.format(strengths[step])}, {name}", said])
    headings = ["ramp over 2,000 parts", "parts until the alarm", "until rejects double"]
    print(markdown_table([*headings, "alarm before", "first said (middle line)"], rows), "\n")
    print(markdown_table(["step", "parts until the alarm"], steps), "\n")


def _quiet(pools: Mapping[str, Pool], lines: int, parts: int) -> None:
    rows = []
    for name, pool in pools.items():
        for limit in (1_000, 10_000, 100_000):
            length = min(parts, limit)
            reached = quiet(pool, lines if limit == parts else 10 * lines, length, limit)
            alarmed = (~np.isnan(reached)).any(axis=1)
            worst = (~np.isnan(reached)).mean(axis=0).max()
            rows.append(
                [name, f"{limit:,}", f"{len(reached)} x {length:,}", f"{alarmed.mean():.0%}"]
            )
            rows[-1].append(f"{worst:.0%}")
    headings = ["category", "`false_alarms`", "lines x parts", "lines with an alarm"]
    print(markdown_table([*headings, "worst single test"], rows), "\n")
    rows = []
    for size, length in WANDERS:
        row = [f"{size:g} of the parts' spread over {length:g} parts"]
        for pool in pools.values():
            reached = quiet(pool, 10 * lines, 10_000, 100_000, Wander(size, length))
            row.append(f"{(~np.isnan(reached)).any(axis=1).mean():.0%}")
        rows.append(row)
    print(markdown_table(["light that wanders by", *pools], rows))


if __name__ == "__main__":
    main()
