"""When drift is said: alarms while nothing changes, and before false rejects double.

    python -m benchmarks.accuracy.drift RUN DATA --rows FILE

Good images that the run did not learn from are judged by its bundle, clean (with a little noise
and JPEG of quality 90 to 98, six times each) and under rising light, blur, shift and colour. FILE
keeps what was measured. Lines are then drawn from these, with replacement: the calibration scores,
the parts that show what is usual, and all that follow, so that every line has its own calibration.

*Quiet*: lines on which nothing changes. *Ramps*: strength rises evenly over 2,000 parts
(``--ramp``); an alarm counts from the ramp's first part, and so does the part at which twice as
many good parts of the pool are rejected as clean. *Steps*: parts from the change to the alarm.
*Time*: a line's watch beside its engine, in turns.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.drift_rows import RAMPS, Pool, kept_pools
from benchmarks.markdown_table import markdown_table
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.data.dataset import find_dataset
from hvq_edge.data.images import fit_image, read_image
from hvq_edge.data.versions import levels
from hvq_edge.run.tiling import FrameShape
from hvq_edge.runtime.open_engine import open_engine
from hvq_edge.stream.drift.category import (
    CategoryWatch,
    references_of,
    scores_within,
    stride_of,
)
from hvq_edge.stream.drift.measures import IMAGE, MARGIN, SCORE, CodeUsage, image_measures, share_of
from hvq_edge.stream.drift.rank_tests import RankTests, reference_of
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.verdict.calibration_scores import table_of
from hvq_edge.verdict.frame_quality import measure
from hvq_edge.verdict.image_checks import SeenFrame
from hvq_edge.verdict.likeness.look import look_at
from hvq_edge.verdict.placement import small_grey

CALIBRATION = 30
FALSE_REJECTS = 0.05
ONSET = 1000

STEPS = {"darker": (2, 4), "blur": (3, 5), "shift": (1, 2), "warmer": (0, 1)}
"""Positions among the strengths."""

WANDERS = ((0.5, 10), (1, 10), (0.25, 100), (0.5, 100), (1, 100))
"""Size and length of light's wandering."""


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


class Lines(NamedTuple):
    """When the tests of many lines first reached their limits."""

    reached: NDArray[np.float64]
    """``[lines, tests]``: parts after the reference parts; NaN: never."""
    measures: tuple[str, ...]

    @property
    def first(self) -> NDArray[np.float64]:
        """``[lines]``: the first of any test; infinite: none."""
        first: NDArray[np.float64] = np.where(np.isnan(self.reached), np.inf, self.reached).min(1)
        return first


def watch(
    pool: Pool,
    rows: NDArray[np.int64],
    limit: int,
    draw: np.random.Generator,
    wander: Wander = STEADY,
    start: int = DriftSettings().reference_parts,
) -> Lines:
    """Watch many lines at once, by the product's own tests, references and strides.

    Args:
        pool: of the category.
        rows: ``[parts, lines]``: what each line shows after its reference parts.
        limit: ``false_alarms``.
        draw: of calibration scores, reference parts and what breaks ties.
        wander: of each line's light.
        start: ``reference_parts``.
    """
    threshold, clean = threshold_of(pool), pool.rows()
    passing = clean[pool.score[clean] <= threshold]
    levels_of_codes = pool.codes.shape[1]
    measures = (SCORE, *IMAGE, MARGIN, *(f"codes {i}" for i in range(levels_of_codes)))
    parts, lines = rows.shape
    light = 1 + IMAGE.index("brightness")
    spread = float(pool.image[passing, light - 1].std())
    lit = wander.over(start + parts, lines, spread, draw)
    strides = np.ones(lines, np.int64)
    fixed = np.column_stack((pool.score, pool.image, pool.margin))
    tables, references = [], []
    for number in range(lines):
        first = draw.choice(passing, start)
        usage = CodeUsage(levels_of_codes)
        for row in first[: start // 2]:
            usage.count(pool.codes[row])
        needed = np.unique(np.concatenate((first, rows[:, number])))
        bits = np.zeros((len(fixed), levels_of_codes))
        bits[needed] = [usage.surprise(pool.codes[row]) for row in needed]
        table = np.column_stack((fixed, bits)).astype(np.float32)
        tables.append(table)
        kept = scores_within(
            table_of(pool.score[draw.choice(clean, CALIBRATION)].tolist()), threshold
        )
        shown = table[first].astype(np.float64)
        shown[:, light] += lit[:start, number]
        strides[number] = stride_of(shown[:, : 1 + len(IMAGE)])
        references += references_of(measures, _untied(shown, draw), kept)
    tests = RankTests(references)
    limits = limit / np.array([share_of(name, levels_of_codes) for name in measures] * lines)
    every, each = np.stack(tables), np.arange(lines)
    passed = np.zeros(lines, np.int64)
    reached = np.full(len(limits), np.nan)
    for part in range(parts):
        values = every[each, rows[part]].astype(np.float64)
        values[:, light] += lit[start + part]
        passes = pool.score[rows[part]] <= threshold
        passed += passes
        values[~passes | (passed % strides != 0)] = np.nan
        tests.take(_untied(values, draw).ravel())
        reached[np.isnan(reached) & (tests.evidence >= limits)] = part + 1
    return Lines(reached.reshape(lines, -1), measures)


def quiet(
    pool: Pool,
    lines: int,
    parts: int,
    limit: int,
    wander: Wander = STEADY,
    start: int = DriftSettings().reference_parts,
) -> Lines:
    """Watch lines on which nothing changes."""
    draw = np.random.default_rng(limit)
    rows = draw.choice(pool.rows(), (parts, lines))
    return watch(pool, rows, limit, draw, wander, start)


def _untied(values: NDArray[np.float64], draw: np.random.Generator) -> NDArray[np.float64]:
    untied: NDArray[np.float64] = values + 1e-9 * draw.uniform(-1, 1, values.shape)
    return untied


def changing(
    pool: Pool, ramp: str, lines: int, parts: int, step: int | None = None
) -> NDArray[np.int64]:
    """Draw the rows of lines with a ramp, or a step to one of its strengths, after the onset."""
    draw = np.random.default_rng(1)
    strengths = len(RAMPS[ramp][1])
    groups = [pool.rows(), *(pool.rows(ramp, i) for i in range(strengths))]
    rows = np.empty((ONSET + parts, lines), np.int64)
    for part in range(ONSET + parts):
        grown = np.full(lines, min(max(part - ONSET, 0) / parts * strengths, strengths))
        if step is not None:
            grown[:] = step + 1 if part >= ONSET else 0
        level = grown.astype(int) + (draw.random(lines) < grown % 1)
        for number, chosen in enumerate(level):
            group = groups[chosen]
            # Where no image is taken for this category any more, the line shows nothing new.
            drawn = group[draw.integers(len(group))] if len(group) else rows[part - 1, number]
            rows[part, number] = drawn
    return rows


def doubling(pool: Pool, ramp: str) -> float:
    """Return the share of the ramp from which false rejects are twice as many as clean."""
    threshold, strengths = threshold_of(pool), len(RAMPS[ramp][1])
    for level in range(strengths):
        rows = np.flatnonzero((pool.ramp == ramp) & (pool.strength == level))
        lost = (pool.score[rows] > threshold) | (pool.margin[rows] < 0)
        if lost.mean() >= 2 * FALSE_REJECTS:
            return (level + 1) / strengths
    return np.inf


def cost(run: Path, pool: Pool, data: Path) -> tuple[float, float]:
    """Return seconds a frame of the engine and of the watch: medians of turns."""
    bundle = open_bundle(run / "bundle")
    image = levels(read_image(find_dataset(data).images[0].path))
    clean, threshold = pool.rows(), threshold_of(pool)
    watch = CategoryWatch("", pool.codes.shape[1], DriftSettings(), None, threshold)
    times: list[tuple[float, float]] = []
    with open_engine(bundle, precision="fp32") as engine:
        fitted = fit_image(image, engine.info.frame_shape)
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


def measuring(data: Path, shape: FrameShape) -> float:
    """Return what measuring a frame once for all takes, as a share of once for each who asks.

    Those are the check before the engine, that after it, the likeness and drift; in turns.
    """
    image = levels(read_image(find_dataset(data).images[0].path))
    fitted = fit_image(image, shape)
    times: list[tuple[float, float]] = []
    for _ in range(600):
        began = perf_counter()
        measure(fitted)
        small_grey(fitted)
        look_at(image, fitted)
        small_grey(fitted)
        apart = perf_counter()
        seen = SeenFrame(fitted)
        _ = seen.quality, seen.small, seen.look(image), seen.small
        times.append((apart - began, perf_counter() - apart))
    apart_seconds, once_seconds = np.median(times, axis=0)
    return float(once_seconds / apart_seconds)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a run with its bundle")
    parser.add_argument("data", type=Path, help="the images it was trained on")
    parser.add_argument("--rows", type=Path, required=True, help="keeps what is measured, .npz")
    parser.add_argument("--lines", type=int, default=20, help="lines a ramp and a step; 0: neither")
    parser.add_argument(
        "--wandering", action="store_true", help="of lines without a change, wandering light alone"
    )
    parser.add_argument(
        "--reference-parts",
        type=int,
        default=DriftSettings().reference_parts,
        help="under wandering light",
    )
    parser.add_argument("--ramp", type=int, default=2000, help="parts over which strength rises")
    parser.add_argument(
        "--quiet-lines", type=int, default=20, help="lines without a change; 0: none, nor the time"
    )
    parser.add_argument("--parts", type=int, default=100_000, help="of each of these")
    asked = parser.parse_args()
    pools = kept_pools(asked.rows, asked.run, asked.data)
    names = sorted(pools)
    if asked.lines:
        _changes(pools, asked.lines, DriftSettings().false_alarms, asked.ramp)
    if not asked.quiet_lines:
        return
    if asked.wandering:
        _wandering(pools, asked.quiet_lines, asked.reference_parts)
        return
    engine_seconds, watch_seconds = cost(asked.run, pools[names[0]], asked.data)
    print(f"watch beside engine: {watch_seconds / engine_seconds:.1%} of its time\n")
    shape = open_bundle(asked.run / "bundle").manifest.frame_shape
    print(f"measured once for all: {measuring(asked.data, shape):.0%} of once for each\n")
    _exact()
    _quiet(pools, asked.quiet_lines, asked.parts)
    _wandering(pools, asked.quiet_lines, asked.reference_parts)


def _changes(pools: Mapping[str, Pool], lines: int, limit: int, length: int) -> None:
    rows, steps = [], []
    for name, pool in pools.items():
        for ramp, (form, strengths, _) in RAMPS.items():
            drawn = changing(pool, ramp, lines, length)
            found = watch(pool, drawn, limit, np.random.default_rng(2))
            parts = found.first - ONSET
            double = doubling(pool, ramp) * length
            where = np.where(np.isnan(found.reached), np.inf, found.reached).argmin(axis=1)
            words = Counter(found.measures[test] for test in where)
            rows.append(
                [
                    f"{ramp} to {form.format(strengths[-1])}, {name}",
                    _parts(parts),
                    f"{double:.0f}" if np.isfinite(double) else "never",
                    f"{(parts < double).sum()} of {lines}",
                    ", ".join(f"{word} ({count})" for word, count in words.most_common(2)),
                ]
            )
            for step in STEPS[ramp]:
                drawn = changing(pool, ramp, lines, 1000, step)
                waits = watch(pool, drawn, limit, np.random.default_rng(2)).first - ONSET
                steps.append([f"{ramp}, {form.format(strengths[step])}, {name}", _parts(waits)])
    headings = [f"ramp over {length:,} parts", "parts until the alarm", "until rejects double"]
    print(markdown_table([*headings, "alarm before", "first by (lines)"], rows), "\n")
    print(markdown_table(["step", "parts until the alarm"], steps), "\n")


def _parts(parts: NDArray[np.float64]) -> str:
    shown = [f"{value:.0f}" if np.isfinite(value) else "never" for value in np.sort(parts)]
    return f"{shown[len(shown) // 2]} ({shown[0]} to {shown[-1]})"


def _exact(lines: int = 400, limit: int = 1000) -> None:
    """Print how near the bound is without slack: one test a line, references of its own."""
    rows = []
    for references in (10, 30, 100):
        draw = np.random.default_rng(references)
        drawn = draw.standard_normal((lines, references))
        tests = RankTests([reference_of(values, 0.0) for values in drawn])
        alarmed = np.zeros(lines, bool)
        for _ in range(limit):
            tests.take(draw.standard_normal(lines))
            alarmed |= tests.evidence >= limit
        rows.append([f"{references}", f"{alarmed.mean():.0%}"])
    print(markdown_table(["references", f"lines with an alarm in {limit:,} values"], rows), "\n")


def _quiet(pools: Mapping[str, Pool], lines: int, parts: int) -> None:
    rows = []
    for name, pool in pools.items():
        for limit in (1_000, 10_000, 100_000):
            length = min(parts, limit)
            count = lines if limit == parts else 5 * lines
            found = quiet(pool, count, length, limit)
            alarmed = np.isfinite(found.first)
            share = (~np.isnan(found.reached)).mean(axis=0)
            rows.append([name, f"{limit:,}", f"{count} x {length:,}", f"{alarmed.sum()}"])
            rows[-1].append(f"{share.max() * count:.0f} ({found.measures[share.argmax()]})")
    headings = ["category", "`false_alarms`", "lines x parts", "lines with an alarm"]
    print(markdown_table([*headings, "worst single test"], rows), "\n")


def _wandering(pools: Mapping[str, Pool], lines: int, start: int) -> None:
    rows = []
    for size, length in WANDERS:
        row = [f"{size:g} of the parts' spread over {length:g} parts"]
        for pool in pools.values():
            found = quiet(pool, 2 * lines, 5_000, 100_000, Wander(size, length), start)
            first = found.reached[np.isfinite(found.first)]
            by = Counter(
                found.measures[test] for test in np.nan_to_num(first, nan=np.inf).argmin(1)
            )
            words = "".join(f", {word} {count}" for word, count in by.most_common(2))
            row.append(f"{len(first) / len(found.first):.0%}{words}")
        rows.append(row)
    print(markdown_table(["light that wanders by", *pools], rows))


if __name__ == "__main__":
    main()
