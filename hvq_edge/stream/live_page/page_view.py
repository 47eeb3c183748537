"""What the page sees of an inspector, and what it may change: everything it knows of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hvq_edge.bundle.judged_images import ImageRow, Labelled, trade_off_corners, verdict_of
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.latency import LatencyHistogram
from hvq_edge.stream.live_page.health import Health
from hvq_edge.stream.live_page.history import History, Record
from hvq_edge.stream.live_page.schemas import (
    CameraState,
    CategoryState,
    Preview,
    StageLatency,
    State,
    Tested,
    TestedVerdicts,
    ThresholdInForce,
)
from hvq_edge.stream.statistics import CameraStatistics, Statistics
from hvq_edge.verdict.judgement import exceeds

PREVIEW_FRAMES = 500
NOT_TESTED = Labelled((), "no labelled test images are at hand")


@dataclass(frozen=True)
class CategoryChoice:
    """For a bundle that must be told what it sees."""

    names: tuple[str, ...]
    current: Callable[[], str]
    choose: Callable[[str], None]
    """Called with one of ``names``, on the page's thread."""


@dataclass(frozen=True)
class PageView:
    """An inspector as the live page sees it. All functions are called on the page's threads."""

    history: History
    controls: Controls
    statistics: Callable[[], Statistics]
    title: str = ""
    """What is inspected with what: the bundle, precision and engine in words."""
    metrics: Callable[[Statistics], bytes] | None = None
    """Prometheus text; without it there is no ``/metrics``."""
    save_threshold: Callable[[str, float], object] | None = None
    """Keeps a category's threshold; without it thresholds last as long as the run."""
    labelled: Labelled = NOT_TESTED
    """Test images that show what thresholds cost."""
    category: CategoryChoice | None = None
    """``None`` where the model chooses the category itself, or has one."""
    acknowledge_drift: Callable[[str], None] | None = None
    """Called with a camera's name; ``None`` where drift is not looked for."""

    def state(
        self,
        statistics: Statistics,
        health: Health,
        *,
        may_change: bool,
        image_interval_ms: float,
        can_review: bool = False,
        can_explain: bool = False,
    ) -> State:
        """Return all that the page shows but images and decisions."""
        rates = self.history.rates()
        choice = self.category
        return State(
            run=self.history.run,
            title=self.title,
            seconds=statistics.seconds,
            sequence=self.history.sequence,
            paused=self.controls.paused,
            image_interval_ms=image_interval_ms,
            may_change=may_change,
            can_save=self.save_threshold is not None,
            can_review=can_review,
            can_explain=can_explain,
            counts=statistics.counts,
            cameras=tuple(
                self._camera(camera, rates.get(camera.name, 0.0)) for camera in statistics.cameras
            ),
            sinks=statistics.sinks,
            stages=tuple(_stage(name, times) for name, times in statistics.stages.items()),
            thresholds=tuple(
                ThresholdInForce(category=category, value=value)
                for category, value in self.controls.thresholds.items()
            ),
            category=CategoryState(names=choice.names, current=choice.current())
            if choice
            else None,
            health=health,
        )

    def _camera(self, camera: CameraStatistics, frames_per_second: float) -> CameraState:
        newest = self.history.newest(camera.name)
        return CameraState(
            name=camera.name,
            connected=camera.connected,
            fault=camera.fault,
            gaps=camera.gaps,
            unlike=camera.unlike,
            drift=camera.drift,
            unread_parts=camera.unread_parts,
            **camera.transport.counts,
            counts=camera.counts,
            frames_per_second=frames_per_second,
            newest=newest.record if newest else None,
        )


def _stage(name: str, times: LatencyHistogram) -> StageLatency:
    p50, p95, p99 = (times.percentile(percent) for percent in (50, 95, 99))
    return StageLatency(name=name, frames=times.count, p50=p50, p95=p95, p99=p99)


def preview(records: Sequence[Record], category: str, threshold: float, in_force: float) -> Preview:
    """Judge the scores of the last frames of a category again.

    Frames without a decision have no part in it: no threshold would have changed them. Rules over
    several frames of a part are not applied: this counts frames, not parts.

    Args:
        records: oldest first.
        category: whose frames count.
        threshold: to try.
        in_force: to compare with.
    """
    judged = [
        record.score
        for record in records
        if record.category == category
        and record.verdict != "no_decision"
        and record.score is not None
        and math.isfinite(record.score)
    ]
    scores = sorted(judged[-PREVIEW_FRAMES:])
    return Preview(
        category=category,
        threshold=threshold,
        in_force=in_force,
        frames=len(scores),
        would_reject=sum(exceeds(score, threshold) for score in scores),
        rejects_now=sum(exceeds(score, in_force) for score in scores),
        lowest=min(scores, default=None),
        highest=max(scores, default=None),
        scores=tuple(scores),
    )


def tested(
    labelled: Labelled, category: str, threshold: float, thresholds: Mapping[str, float]
) -> Tested:
    """Say what thresholds do to the labelled test images of a category.

    Args:
        labelled: of all categories.
        category: one of ``thresholds``.
        threshold: to try.
        thresholds: in force, by category: an image meets that of the category it was judged as.
    """
    rows, untested = labelled.of(category)
    good = [row for row in rows if row.good]
    defective = [row for row in rows if not row.good]
    if not untested and not good:
        untested = f"no test image shows a good {category}"
    both = (_decided_scores(good), _decided_scores(defective))

    def verdicts(at: Mapping[str, float]) -> TestedVerdicts:
        return TestedVerdicts(
            rejected=sum(verdict_of(row, at) == "reject" for row in good),
            missed=sum(verdict_of(row, at) == "pass" for row in defective),
        )

    return Tested(
        category=category,
        untested=untested,
        good=len(good),
        defective=len(defective),
        curve=() if untested else tuple(trade_off_corners(*both)),
        threshold=threshold,
        in_force=verdicts(thresholds),
        tried=verdicts({**thresholds, category: threshold}),
    )


def _decided_scores(rows: Sequence[ImageRow]) -> list[float]:
    return [row.score for row in rows if row.score is not None and row.refused is None]
