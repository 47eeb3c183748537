"""What the live page watches, and what it may change: everything it knows of the inspector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hvq_edge.stream.controls import Controls
from hvq_edge.stream.live_page.recent import LivePage
from hvq_edge.stream.statistics import Statistics


@dataclass(frozen=True)
class CategoryChoice:
    """For a bundle that must be told what it sees."""

    names: tuple[str, ...]
    current: Callable[[], str]
    choose: Callable[[str], None]
    """Called with one of ``names``, on the page's thread."""


@dataclass(frozen=True)
class Watched:
    """An inspector as the live page sees it. All functions are called on the page's threads."""

    page: LivePage
    controls: Controls
    statistics: Callable[[], Statistics]
    title: str = ""
    """What is inspected with what: the bundle, precision and engine in words."""
    metrics: Callable[[Statistics], bytes] | None = None
    """Prometheus text; without it there is no ``/metrics``."""
    save_threshold: Callable[[str, float], object] | None = None
    """Keeps a category's threshold; without it thresholds last as long as the run."""
    category: CategoryChoice | None = None
    """``None`` where the model chooses the category itself, or has one."""
