"""Watches whether a camera's good parts go on as they were: what moved, by how much, since when.

Only passed parts count, so that defects are no drift; a share of rejects is the likeness's matter
(:mod:`hvq_edge.stream.likeness`) and the counts'. Nothing is rejected because of drift.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvq_edge.stream.drift.category import Alarm, CategoryWatch, Floats, PartSeen
from hvq_edge.stream.drift.measures import remedies
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.verdict.calibration_scores import CalibrationScores
from hvq_edge.verdict.judgement import exceeds

SAME_PART = 0.1
"""A frame shows the part of the former one where it differs from it by less than so much of what
parts differ by: while a belt stands still, one part is seen a thousand times."""
_NEWS = 0.05
"""Weight of a part's difference in the mean of those before."""

logger = logging.getLogger(__name__)


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
        self._former: tuple[str, NDArray[np.float32]] | None = None
        self._differ: dict[str, float] = {}
        """How much two parts of a category differ, in grey levels."""

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
        if self._shown_before(small, category) or exceeds(part.score, threshold):
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

    def state(self, prefix: str) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return facts, as JSON values, and arrays whose names begin with a prefix."""
        categories: dict[str, Any] = {}
        arrays: dict[str, Floats] = {}
        for number, (name, watch) in enumerate(self._watched.items()):
            known = watch.state()
            if known is not None:
                categories[name] = known[0]
                arrays |= {f"{prefix}{number}/{key}": value for key, value in known[1].items()}
                categories[name]["arrays"] = f"{prefix}{number}/"
        return {"own": sorted(self._own), "categories": categories}, arrays

    def restore(self, facts: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Go on where :meth:`state` was taken.

        Raises:
            LookupError, TypeError, ValueError: it is no such state.
        """
        self._own = set(facts["own"])
        for name, known in facts["categories"].items():
            start = known["arrays"]
            mine = {
                key.removeprefix(start): value
                for key, value in arrays.items()
                if key.startswith(start)
            }
            watch = CategoryWatch(
                name,
                len(mine["usage"]),
                self._settings,
                None if name in self._own else self._good.get(name),
                float(known["threshold"]),
            )
            watch.restore(known, mine)
            self._watched[name] = watch
            self.alarms = (*self.alarms, *watch.alarms.values())

    def forget(self) -> None:
        """Begin anew."""
        self._watched.clear()
        self._own.clear()
        self.alarms = ()

    def _shown_before(self, small: NDArray[np.float32], category: str) -> bool:
        """Whether a frame shows the part of the former one, in the same place."""
        former, self._former = self._former, (category, small)
        if former is None or former[0] != category:  # what two products differ by says nothing
            return False
        difference = float(np.abs(small - former[1]).mean())
        usual = self._differ.get(category, 0.0)
        if difference < SAME_PART * usual:
            return True
        self._differ[category] = usual + _NEWS * (difference - usual) if usual else difference
        return False
