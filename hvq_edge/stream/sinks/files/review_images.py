"""Images for people to judge: a random share of passes, near misses, frames without a decision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from hvq_edge.stream.review.choice import Choice
from hvq_edge.stream.sinks.files.reject_images import make_folder, save_map_and_image, stem_of
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


class ReviewImages:
    """Writes ``STEM.npy``, the map, and ``STEM.png``, the image, of decisions that are no rejects.

    Rejects are in a folder of their own, whatever is chosen here.

    Args:
        folder: where to; it is made.
        choice: what is kept.
        thresholds: gives those in force.
        no_decision_seconds: between two images of a camera that led to no decision: a lamp that is
            out must not fill the disk.
        name_cameras: whether the camera's name is a part of the stem; needed with several.

    Raises:
        OutputError: the folder cannot be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        choice: Choice,
        thresholds: Callable[[], Mapping[str, float]],
        no_decision_seconds: float,
        *,
        name_cameras: bool = False,
    ) -> None:
        self._folder = folder
        self._choice = choice
        self._thresholds = thresholds
        self._no_decision_seconds = no_decision_seconds
        self._name_cameras = name_cameras
        self._undecided_at: dict[str, float] = {}
        self.saved = 0
        """Images saved so far."""
        make_folder(folder)

    def wants(self, decision: Decision) -> bool:
        """Tell whether a decision is one to look at, on any thread."""
        threshold = self._thresholds().get(decision.category or "")
        queue = self._choice.queue(
            decision.verdict, decision.camera, decision.frame, decision.score, threshold
        )
        return queue is not None and queue != "reject"

    def write(self, decision: Decision, frame: Frame) -> None:
        """Save the image of a decision that :meth:`wants` has let through.

        Raises:
            OutputError: a file cannot be written.
        """
        if frame.image is None:
            return
        if decision.verdict == "no_decision":
            last = self._undecided_at.get(decision.camera)
            if last is not None and 0.0 <= decision.time - last < self._no_decision_seconds:
                return
            self._undecided_at[decision.camera] = decision.time
        stem = stem_of(decision.fields(), name_camera=self._name_cameras)
        save_map_and_image(self._folder, stem, decision, frame.image)
        self.saved += 1

    def close(self) -> None:
        """Nothing is left to do."""
