"""What a camera's judged frames are compared with: the training images, and the frames before."""

from __future__ import annotations

from collections.abc import Mapping

from hvq_edge.stream.capture.camera_lane import CheckedFrame
from hvq_edge.stream.drift.category import Alarm, part_seen
from hvq_edge.stream.drift.measures import image_measures
from hvq_edge.stream.drift.settings import DriftSettings
from hvq_edge.stream.drift.watch import DriftWatch
from hvq_edge.stream.likeness import LikenessWatch
from hvq_edge.verdict.calibration_scores import CalibrationScores
from hvq_edge.verdict.decision import Decision
from hvq_edge.verdict.judgement import Judgement
from hvq_edge.verdict.likeness.usual import UsualLook


class CameraWatch:
    """Watches one camera's images; nothing is decided by it. One thread takes frames.

    Args:
        camera: its name.
        usual: what the training images look like, by category.
        good: what good parts score, by category.
        settings: of the watch for drift.
        of_parts: whether several frames make a part.
    """

    def __init__(
        self,
        camera: str,
        usual: Mapping[str, UsualLook],
        good: Mapping[str, CalibrationScores],
        settings: DriftSettings,
        *,
        of_parts: bool,
    ) -> None:
        self.likeness = LikenessWatch(camera, usual)
        self.drift = (
            DriftWatch(camera, good, settings, of_parts=of_parts) if settings.watch else None
        )
        """``None``: it is not looked for."""

    @property
    def alarms(self) -> tuple[Alarm, ...]:
        """What has drifted and is not acknowledged."""
        return () if self.drift is None else self.drift.alarms

    def acknowledge(self) -> None:
        """End the alarms: it learns anew what is usual. For any thread."""
        if self.drift is not None:
            self.drift.acknowledge()

    @property
    def drift_said(self) -> str:
        """What has drifted and what to do; empty while nothing has."""
        drift = self.drift
        return f"{drift.said}: {drift.remedy}" if drift is not None and drift.alarms else ""

    def take(
        self,
        decision: Decision,
        checked: CheckedFrame,
        judgement: Judgement | None,
        thresholds: Mapping[str, float],
    ) -> None:
        """Compare a frame, if it has a score.

        Args:
            decision: on it.
            checked: the frame.
            judgement: what the engine said of it.
            thresholds: in force, by category.
        """
        category, image, seen = decision.category, checked.frame.image, checked.seen
        if category is None or decision.score is None or image is None or seen is None:
            return
        likeness, drift = self.likeness, self.drift
        if category not in likeness.usual and drift is None:
            return
        look = seen.look(image)
        if category in likeness.usual:
            likeness.take(category, look, decision.p_value)
        if drift is None or judgement is None or category not in thresholds:
            return
        if decision.part_verdict is not None or not drift.of_parts:
            part = part_seen(decision.time, judgement, image_measures(look, seen.small))
            drift.take(part, seen.small, category, thresholds[category])
