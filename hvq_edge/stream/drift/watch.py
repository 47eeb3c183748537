"""Watches whether a camera's good parts go on as they were: what moved, by how much, since when.

Only passed parts count, so that defects are no drift; a share of rejects is the likeness's matter
(:mod:`hvq_edge.stream.likeness`) and the counts'. Nothing is rejected because of drift.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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

SAME_PART = 0.3
"""A frame shows the part of the former one where it differs from it by less than so much of what
frames differ by: while a belt stands still, one part is seen a thousand times."""
_FORGETTING = 0.999
"""Of the largest difference, a frame: it is found anew after another product."""
ALIKE = 0.3
"""Correlation of neighbours from which parts do not count one by one."""
LONGEST_STRIDE = 25
_TIE = 1e-9
"""Values that are exactly the same fall into an order by chance: then no tie breaks the odds."""

logger = logging.getLogger(__name__)


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

    @property
    def learning(self) -> bool:
        """Whether it still learns what is usual."""
        return self._learning is not None

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


class DriftWatch:
    """Watches one camera's categories. One thread takes frames, any thread may do all else.

    Args:
        camera: its name, for the warnings.
        good: what good parts score, by category.
        settings: of the watch.
        of_parts: whether several frames make a part: then its last one counts.
    """

    def __init__(
        self,
        camera: str,
        good: Mapping[str, CalibrationScores],
        settings: DriftSettings,
        *,
        of_parts: bool = False,
    ) -> None:
        self.alarms: tuple[Alarm, ...] = ()
        """Not acknowledged yet."""
        self.of_parts = of_parts
        self._camera = camera
        self._good = good
        self._settings = settings
        self._watched: dict[str, CategoryWatch] = {}
        self._acknowledged = False
        self._own: set[str] = set()
        """Categories whose scores are compared with the line's own since an acknowledgement."""
        self._former: NDArray[np.float32] | None = None
        self._differ = 0.0

    @property
    def said(self) -> str:
        """``drift of bolt: softer (0.21 of 0.48) since …``; empty while nothing moved."""
        by_category: dict[str, list[str]] = {}
        for alarm in self.alarms:
            by_category.setdefault(alarm.category, []).append(str(alarm))
        return "; ".join(f"drift of {name}: {', '.join(one)}" for name, one in by_category.items())

    @property
    def remedy(self) -> str:
        """What to do."""
        return remedies([alarm.measure for alarm in self.alarms])

    def acknowledge(self) -> None:
        """From the next frame on learn anew what is usual, from the line's own parts."""
        self._acknowledged = True

    def take(
        self, part: PartSeen, small: NDArray[np.float32], category: str, threshold: float
    ) -> None:
        """Take a judged frame.

        Args:
            part: what it shows.
            small: the frame, by :func:`hvq_edge.verdict.placement.small_grey`.
            category: that it was judged as.
            threshold: of its category, in force.
        """
        if self._acknowledged:
            self._acknowledged = False
            self._own |= set(self._watched)
            self._watched.clear()
            self.alarms = ()
            logger.info("%s: drift is acknowledged; what is usual is learnt anew", self._camera)
        if self._shown_before(small) or exceeds(part.score, threshold):
            return
        watch = self._watched.get(category)
        if watch is None or watch.threshold != threshold:
            good = None if category in self._own else self._good.get(category)
            watch = CategoryWatch(category, len(part.codes), self._settings, good, threshold)
            self._watched[category] = watch
            self.alarms = tuple(one for one in self.alarms if one.category != category)
        found = watch.take(part)
        if found:
            self.alarms = (*self.alarms, *found)
            logger.warning("%s: %s: %s", self._camera, self.said, self.remedy)

    def _shown_before(self, small: NDArray[np.float32]) -> bool:
        """Whether a frame shows the part of the former one, in the same place."""
        former, self._former = self._former, small
        if former is None:
            return False
        difference = float(np.abs(small - former).mean())
        self._differ = max(difference, self._differ * _FORGETTING)
        return difference < SAME_PART * self._differ


def stride_of(rows: Floats) -> int:
    """Return of how many parts in a row one counts, because neighbours are alike.

    With correlations r1, r2 and so on over distances, n values tell of their mean as much as
    n / (1 + 2 r1 + 2 r2 + ...) independent ones (Bayley and Hammersley, 1946).

    Args:
        rows: ``[parts, measures]``, in the order in which they were seen.
    """
    longest = 1.0
    for values in rows.T:
        centred = values - values.mean()
        power = float(centred @ centred)
        if len(values) < 2 or not power > (10 * _TIE) ** 2 * len(values):
            continue
        time = 1.0
        for distance in range(1, len(values) // 2):
            alike = float(centred[distance:] @ centred[:-distance]) / power
            if alike < (ALIKE if distance == 1 else 0.05):
                break
            time += 2 * alike
        longest = max(longest, time)
    return min(math.ceil(longest - 0.5), LONGEST_STRIDE)
