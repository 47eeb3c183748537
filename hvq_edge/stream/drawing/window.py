"""Annotated frames in a window."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import cv2

from hvq_edge.errors import MissingCapability
from hvq_edge.stream.sinks.sink import Draw
from hvq_edge.stream.sources.cameras.opencv_capture import quiet_opencv
from hvq_edge.stream.sources.source import Frame
from hvq_edge.verdict.decision import Decision

TITLE = "hvq-edge (q quits)"


def has_screen(environment: Mapping[str, str]) -> bool:
    """Tell from the environment whether there is a screen to show windows on."""
    return bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))


class Window:
    """Shows each decided frame; the key q asks for the end.

    Args:
        draw: draws a frame.
        quit_asked: called when q is pressed.

    Raises:
        MissingCapability: there is no screen, or OpenCV was built without windows.
    """

    def __init__(self, draw: Draw, quit_asked: Callable[[], None]) -> None:
        self._draw = draw
        self._quit_asked = quit_asked
        self._open = False
        if not has_screen(os.environ):  # asked first: without one, Qt ends the whole process
            raise MissingCapability(
                "there is no screen to show a window on (neither DISPLAY nor WAYLAND_DISPLAY).",
                next_step="run with --no-display, and --out DIR to keep an annotated video",
            )
        try:
            with quiet_opencv():
                cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        except cv2.error as error:
            raise MissingCapability(
                f"this OpenCV {cv2.__version__} was built without windows.",
                next_step="pip install opencv-python in place of opencv-python-headless, or run "
                "with --no-display",
            ) from error
        self._open = True

    def write(self, decision: Decision, frame: Frame) -> None:
        """Show one frame."""
        if not self._open:
            return
        cv2.imshow(TITLE, cv2.cvtColor(self._draw(decision, frame), cv2.COLOR_RGB2BGR))
        if cv2.waitKey(1) & 0xFF in (ord("q"), ord("Q")):
            self._quit_asked()

    def close(self) -> None:
        """Close the window."""
        if self._open:
            self._open = False
            cv2.destroyWindow(TITLE)
