"""What an operator may change while the inspector runs: pause, thresholds."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping

from hvq_edge.errors import SettingsError


class Controls:
    """Shared by the inspector, which obeys, and whoever lets an operator decide; thread-safe.

    Args:
        thresholds: in force at the start, by category; a score above is a reject.
    """

    def __init__(self, thresholds: Mapping[str, float]) -> None:
        self._lock = threading.Lock()
        self._thresholds = dict(thresholds)
        self._paused = False
        self._changed_by: dict[str, str] = {}

    @property
    def paused(self) -> bool:
        """Whether frames are taken and counted, but lead to ``no_decision: paused``."""
        with self._lock:
            return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        with self._lock:
            self._paused = value

    @property
    def thresholds(self) -> dict[str, float]:
        """A copy of the thresholds in force, by category."""
        with self._lock:
            return dict(self._thresholds)

    def changed_by(self, category: str) -> str:
        """Return who put a category's threshold in force; empty: that was not said."""
        with self._lock:
            return self._changed_by.get(category, "")

    def set_threshold(self, category: str, value: float, by: str = "") -> None:
        """Put a threshold in force from the next decision on.

        Args:
            category: whose.
            value: a score above is a reject.
            by: the name that whoever changes it gave.

        Raises:
            SettingsError: the category has no threshold, or the value is not a finite number.
        """
        with self._lock:
            if category not in self._thresholds:
                known = ", ".join(self._thresholds) or "none"
                raise SettingsError(
                    f"{category!r} has no threshold here; these have one: {known}.",
                    next_step="name one of these",
                )
            if not math.isfinite(value):
                raise SettingsError(
                    f"a threshold must be a finite number, not {value}.",
                    next_step="give a number on the scale of the scores",
                )
            self._thresholds[category] = value
            self._changed_by[category] = by
