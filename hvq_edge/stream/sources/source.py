"""The source protocol: where frames come from.

A source is opened by :func:`hvq_edge.stream.sources.open_source.open_source`, iterated once, by one
thread, and closed. What goes wrong while it runs is a frame without an image, never an exception:
an inspector that watches a line must not die of a loose cable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hvq_edge.common.redaction import redacted_message
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.verdict.decision import as_text

Image = NDArray[np.uint8]
"""uint8 ``[height, width, 3]``, RGB, of any size."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a source, or the record that one was lost."""

    index: int
    """Counts from 0 over everything the source gave, lost frames included."""
    time: float
    """When it arrived: seconds since 1970, UTC; where a camera's own clock tells how long it waited
    before it was read, without that."""
    image: Image | None
    """``None`` when the frame was lost."""
    name: str = ""
    """File name of an image file, relative to its folder, or of a video with the number of its
    frame (``video.mp4#120``); else empty."""
    fault: str = ""
    """Why there is no image; empty otherwise."""
    arrived: float = field(default_factory=monotonic)
    """The same on the monotonic clock, for latencies that survive a clock jump."""
    part: str = ""
    """Serial number of the part that it shows (:func:`part_number`); empty where it is not known.
    """

    def __post_init__(self) -> None:
        if (self.image is None) != bool(self.fault):
            raise ValueError("a frame has either an image or the reason why it has none")


class Source(Protocol):
    """Gives frames."""

    @property
    def live(self) -> bool:
        """Whether frames come whether or not anybody is ready for them (a camera)."""
        ...

    @property
    def name(self) -> str:
        """What it is, for messages and logs: never holds a password."""
        ...

    @property
    def frames_per_second(self) -> float | None:
        """Nominal frame rate, where the source has one."""
        ...

    def __iter__(self) -> Iterator[Frame]:
        """Give frames in order, until the end or until :meth:`close`. Never raises mid-stream."""
        ...

    def close(self) -> None:
        """Ask the iteration to end; safe from another thread and when called twice."""
        ...


MOST_CHARACTERS = 200
"""Of a part's serial number."""


def part_number(text: str) -> str:
    """Return a text as a part's serial number, without white space around it; empty: it is none.

    A text of more than :data:`MOST_CHARACTERS` is none: cut short, it could be another part's.
    """
    number = as_text(text.strip())
    return number if len(number) <= MOST_CHARACTERS else ""


def is_video_frame(name: str) -> bool:
    """Tell a frame of a video from an image file by a frame's name."""
    return re.search(r"#\d+$", name) is not None  # no image file has such a suffix


def comes_on_demand(source: Source) -> bool:
    """Tell whether a source may rightly be silent for long: a trigger's, or a watched folder.

    Such a source says so with an attribute ``on_demand``, which may change: a frame is due while a
    read is under way.
    """
    return bool(getattr(source, "on_demand", False))


def is_camera(source: Source) -> bool:
    """Tell whether a source's images are a camera's, which may freeze; a file may well repeat one.

    A source that is a camera without being :attr:`Source.live`, because it waits for triggers, says
    so with an attribute of this name.
    """
    return bool(getattr(source, "is_camera", source.live))


def unread_parts(source: Source) -> int:
    """Return how many of a source's images show a part whose serial number could not be read.

    A source that reads them says so with an attribute of this name.
    """
    return int(getattr(source, "unread_parts", 0))


def transport_of(source: Source) -> Transport:
    """Return what went wrong on the way from a source so far.

    A source whose camera counts its frames says so with an attribute ``transport``.
    """
    transport = getattr(source, "transport", None)
    return transport if isinstance(transport, Transport) else Transport()


def lost(index: int, fault: str, name: str = "") -> Frame:
    """Return the record of a frame lost now; credentials are taken out of the fault."""
    return Frame(index, time(), None, name, redacted_message(fault))


def arrived(index: int, image: Image, name: str = "", *, due: float | None = None) -> Frame:
    """Return a frame that arrived now, or before.

    Args:
        index: its number.
        image: what it shows.
        name: of its file.
        due: when it would have arrived had it not waited, on the monotonic clock; default: now.
    """
    now = monotonic()
    at = now if due is None else due
    return Frame(index, time() - (now - at), image, name, arrived=at)


def unique_names(names: Sequence[str]) -> list[str]:
    """Number the names that several cameras share: two streams of one host look the same."""
    unique: list[str] = []
    for name in names:
        number, candidate = 1, name
        while candidate in unique:
            number += 1
            candidate = f"{name} #{number}"
        unique.append(candidate)
    return unique
