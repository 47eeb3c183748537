"""One sink a camera, for what cannot be mixed: a video."""

from __future__ import annotations

from collections.abc import Callable

from hvq_edge.errors import OutputError
from hvq_edge.stream.sinks.files.reject_images import camera_of
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision


class ByCamera:
    """Makes a sink for each camera with its first decision.

    Args:
        make: given the camera's name, makes its sink.
    """

    def __init__(self, make: Callable[[str], Sink]) -> None:
        self._make = make
        self._sinks: dict[str, Sink] = {}

    def write(self, decision: Decision, frame: Frame) -> None:
        """Hand a decision to its camera's sink.

        Raises:
            OutputError: of that sink.
        """
        camera = camera_of(decision)
        if camera not in self._sinks:
            self._sinks[camera] = self._make(camera)
        self._sinks[camera].write(decision, frame)

    def close(self) -> None:
        """Close all, whatever becomes of the others.

        Raises:
            OutputError: the first that went wrong.
        """
        errors = []
        for sink in self._sinks.values():
            try:
                sink.close()
            except OutputError as error:
                errors.append(error)
        if errors:
            raise errors[0]
