"""Watches one category at one camera: first what is usual, then whether it goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hvq_edge.stream.drift.measures import (
    IMAGE,
    MARGIN,
    SCORE,
    CodeUsage,
    remedies,
    saying_of,
    share_of,
    shown,
    slack_of,
)
from hvq_edge.stream.drift.rank_tests import RankTests, Reference, reference_of
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.verdict.calibration_scores import CalibrationScores
from hvq_edge.verdict.judgement import Judgement, exceeds

Floats = NDArray[np.float64]

ALIKE = 0.3
"""Correlation of neighbours from which parts do not count one by one."""
LONGEST_STRIDE = 25
_TIE = 1e-9
"""Values that are exactly the same fall into an order by chance: then no tie breaks the odds."""


@dataclass(frozen=True)
class Alarm:
    """What moved."""

    category: str
    measure: str
    words: str
    """``softer``, ``higher scores of passed parts``."""
    value: float
    """Mean since then."""
    usual: float
    """Median before."""
    since: float
    """Seconds since 1970, UTC: the likeliest beginning."""
    parts: int
    """That were counted since then."""

    def __str__(self) -> str:
        at = datetime.fromtimestamp(self.since, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
        return f"{self.words} ({self.value:.3g} of {self.usual:.3g}) since {at} UTC"

    def fields(self, camera: str) -> dict[str, Any]:
        """Return it for the log, as JSON values."""
        return {
            "camera": camera,
            "category": self.category,
            "measure": self.measure,
            "what": self.words,
            "value": self.value,
            "usual": self.usual,
            "since": round(self.since, 6),
            "parts": self.parts,
            "remedy": remedies([self.measure]),
        }


class PartSeen(NamedTuple):
    """What one judged frame shows."""

    time: float
    """Seconds since 1970, UTC."""
    score: float
    margin: float
    """Infinite where the category was given."""
    image: Floats
    """As :func:`hvq_edge.stream.drift.measures.image_measures`."""
    codes: NDArray[np.int32]
    """``[levels, tokens]``."""


def part_seen(time: float, judgement: Judgement, image: Floats) -> PartSeen:
    """Return what a judged frame shows."""
    codes = np.zeros((0, 1), np.int32) if judgement.codes is None else judgement.codes
    return PartSeen(time, judgement.score, judgement.margin, image, codes)


@dataclass
class _Learning:
    """The parts that show what is usual: of the first half the codes alone are counted."""

    usage: CodeUsage
    rows: list[Floats] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    coded: int = 0


class CategoryWatch:
    """Watches one category at one camera.

    Args:
        category: its name.
        levels: of codes.
        settings: of the watch.
        good: what good parts score; ``None``: the line's own parts show it.
        threshold: that passed parts are within.
    """

    def __init__(
        self,
        category: str,
        levels: int,
        settings: DriftSettings,
        good: CalibrationScores | None,
        threshold: float,
    ) -> None:
        self.threshold = threshold
        self.alarms: dict[str, Alarm] = {}
        self.measures = (SCORE, *IMAGE, MARGIN, *(f"codes {level}" for level in range(levels)))
        self._category = category
        self._settings = settings
        self._good = good
        self._learning: _Learning | None = _Learning(CodeUsage(levels))
        self._usage = self._learning.usage
        self._draw = np.random.default_rng(0)
        self._limits = settings.false_alarms / np.array(
            [share_of(measure, levels) for measure in self.measures]
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Floats]] | None:
        """Return facts, as JSON values, and arrays; ``None`` while it learns what is usual."""
        if self._learning is not None:
            return None
        facts = {
            "measures": self.measures,
            "threshold": self.threshold,
            "stride": self._stride,
            "usual": self._usual,
            "alarms": [asdict(alarm) for alarm in self.alarms.values()],
        }
        return facts, {**self._tests.arrays(), "usage": self._usage.counts}

    def restore(self, facts: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Go on where :meth:`state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is no such state, or of other measures.
        """
        if tuple(facts["measures"]) != self.measures:
            raise ValueError("other measures were watched")
        self._tests = RankTests.of(arrays)
        self._usage.counts = arrays["usage"].astype(np.float64)
        self._stride, self._skipped = int(facts["stride"]), 0
        self._usual = [float(value) for value in facts["usual"]]
        self.alarms = {one["measure"]: Alarm(**one) for one in facts["alarms"]}
        self._learning = None

    def take(self, part: PartSeen) -> list[Alarm]:
        """Take a passed part, and return what has moved by now and had not before."""
        row = self._row(part)
        learning = self._learning
        if learning is None:
            self._skipped += 1
            return self._test(row, part.time) if self._skipped >= self._stride else []
        learning.rows.append(row)
        learning.times.append(part.time)
        if len(learning.rows) <= self._settings.reference_parts // 2:
            self._usage.count(part.codes)
        if len(learning.rows) < self._settings.reference_parts:
            return []
        return self._learnt(np.stack(learning.rows), learning.times)

    def _row(self, part: PartSeen) -> Floats:
        margin = part.margin if math.isfinite(part.margin) else math.nan
        surprise = self._usage.surprise(part.codes)
        row = np.concatenate(([part.score], part.image, [margin], surprise))
        tie: Floats = row + _TIE * self._draw.uniform(-1, 1, len(row))
        return tie

    def _learnt(self, rows: Floats, times: list[float]) -> list[Alarm]:
        """Begin to test; calibration scores were known before, so the score is tested from then."""
        self._stride = stride_of(rows[:, : 1 + len(IMAGE)])
        self._skipped = 0
        known = None if self._good is None else scores_within(self._good, self.threshold)
        references = references_of(self.measures, rows, known)
        self._usual = [
            float(np.median(one.values)) if len(one.values) else 0.0 for one in references
        ]
        self._tests = RankTests(references)
        self._learning = None
        found: list[Alarm] = []
        if known is not None:
            for row, time in zip(rows[:: self._stride], times[:: self._stride], strict=True):
                alone = np.full(len(row), np.nan)
                alone[0] = row[0]
                found += self._test(alone, time)
        return found

    def _test(self, row: Floats, time: float) -> list[Alarm]:
        self._skipped = 0
        self._tests.take(row, time)
        found = []
        for test in np.flatnonzero(self._tests.evidence >= self._limits):
            measure = self.measures[test]
            if measure in self.alarms:
                continue
            moved = self._tests.moved(int(test))
            saying = saying_of(measure)
            alarm = Alarm(
                self._category,
                measure,
                saying.up if moved.up else saying.down,
                shown(measure, moved.mean),
                shown(measure, self._usual[test]),
                moved.since,
                moved.values * self._stride,
            )
            self.alarms[measure] = alarm
            found.append(alarm)
        return found


def scores_within(good: CalibrationScores, threshold: float) -> Reference | None:
    """Return the calibration scores of parts that would pass; ``None``: none would.

    Good parts that pass are to these as all good parts are to all: so rejects may stay out.
    """
    kept = [score for score in good.scores if not exceeds(score, threshold)]
    if not kept:
        return None
    above = np.array([good.count, *good.above[: len(kept)]])
    beyond = good.above[len(kept)] if len(kept) < len(good.scores) else -1
    weights = np.append(above[:-1] - above[1:], above[-1] - beyond).astype(np.float64)
    values = np.array(kept)
    return Reference(values, weights, slack_of(SCORE, values))


def references_of(
    measures: Sequence[str], rows: Floats, scores: Reference | None
) -> list[Reference]:
    """Return what each measure is compared with.

    Args:
        measures: names of the columns.
        rows: ``[parts, measures]``: the first passed parts. In the first half of them the usage of
            codes was counted, so only the second half says how rare the codes of other parts are.
        scores: what passed parts score, where the bundle knows it.
    """
    found = []
    for measure, column in zip(measures, rows.T, strict=True):
        values = column[len(column) // 2 :] if measure.startswith("codes") else column
        values = values[np.isfinite(values)]
        if measure == SCORE and scores is not None:
            found.append(scores)
        else:
            found.append(reference_of(values, slack_of(measure, values) if len(values) else 0.0))
    return found


def stride_of(rows: Floats) -> int:
    """Return of how many parts in a row one counts, because neighbours are alike.

    With correlations r1, r2 and so on over distances, n values tell of their mean as much as
    n / (1 + 2 r1 + 2 r2 + ...) independent ones (Bayley and Hammersley, 1946).

    Args:
        rows: ``[parts, measures]``, in the order in which they were seen.
    """
    longest, first = 1.0, max(ALIKE, 3 / math.sqrt(len(rows)))
    for values in rows.T:
        centred = values - values.mean()
        power = float(centred @ centred)
        if len(values) < 2 or not power > (10 * _TIE) ** 2 * len(values):
            continue
        time = 1.0
        for distance in range(1, len(values) // 2):
            alike = float(centred[distance:] @ centred[:-distance]) / power
            if alike < (first if distance == 1 else 0.05):
                break
            time += 2 * alike
        longest = max(longest, time)
    return min(math.ceil(longest - 0.5), LONGEST_STRIDE)
