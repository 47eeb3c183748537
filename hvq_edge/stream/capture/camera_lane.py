"""One source on its way to the engine: its capture thread, its queue, its checks, its counts."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar, get_args

from hvq_edge.data.images import fit_image
from hvq_edge.errors import ImageError, SettingsError
from hvq_edge.run.tiling import FrameSize
from hvq_edge.stream.settings import Policy
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.stream.sources.source import (
    Frame,
    Source,
    comes_on_demand,
    transport_of,
    unread_parts,
)
from hvq_edge.stream.statistics import CameraStatistics, Counts
from hvq_edge.verdict.image_checks import FrameChecks, SeenFrame
from hvq_edge.verdict.judgement import Verdict

POLICIES: tuple[Policy, ...] = get_args(Policy)

SILENT_SECONDS = 5.0
"""A live camera that gives nothing for longer, not even a lost frame, is not connected."""


Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class CheckedFrame:
    """A frame made ready for the engine, or known to be unfit for it."""

    frame: Frame
    seen: SeenFrame | None
    """As the engine would see it; ``None`` where there is no usable image."""
    fault: str | None
    """Why it cannot be judged."""
    checks_ms: float
    """What making it ready took."""

    @property
    def fit(self) -> bool:
        """Whether the engine can be asked."""
        return self.seen is not None and self.fault is None


class CameraLane:
    """Captures one source on a thread of its own.

    With policy ``all`` frames are fitted and checked on that thread too, so that the engine never
    waits for it. With ``latest`` that would be wasted on frames that are dropped: it is done when
    a frame is taken.

    Args:
        source: closed by :meth:`close`.
        name: of the camera.
        policy: of its queue.
        checks: of its frames; used by one thread.
        size: of the model's input, in pixels.
        changed: notified when a frame is ready; lanes of one inspector share it.
        max_frames: end after this many frames, dropped ones included.
    """

    def __init__(
        self,
        source: Source,
        name: str,
        policy: Policy,
        checks: FrameChecks,
        size: FrameSize,
        changed: threading.Condition,
        max_frames: int | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self._source = source
        self._checks = checks
        self._size = size
        self._max_frames = max_frames
        self._queue: FrameQueue[Frame | CheckedFrame] = FrameQueue(policy, changed)
        self._thread = threading.Thread(target=self._capture, name=f"capture {name}", daemon=True)
        self._gaps = 0
        self._fault = ""
        self._verdicts: dict[Verdict, int] = {"pass": 0, "reject": 0, "no_decision": 0}
        self._broken_off = 0
        self._stopping = False
        self._last = time.monotonic()

    def start(self) -> None:
        """Start to capture; once."""
        self._last = time.monotonic()
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether :meth:`take` would give a frame, or raise."""
        return self._queue.ready

    @property
    def exhausted(self) -> bool:
        """Whether nothing will come any more."""
        return self._queue.exhausted

    @property
    def transport(self) -> Transport:
        """What went wrong on the way from the camera so far."""
        return transport_of(self._source)

    def take(self) -> CheckedFrame | None:
        """Take the next frame, checked; ``None`` if there is none now.

        Raises:
            BaseException: what ended the source, once the frames before it are taken.
        """
        taken = self._queue.get(0.0)
        return self._check(taken) if isinstance(taken, Frame) else taken

    def count(self, verdict: Verdict) -> None:
        """Count the decision on a frame that was taken."""
        self._verdicts[verdict] += 1

    def stop(self) -> None:
        """Ask the source to end; frames already captured still come."""
        self._stopping = True
        self._source.close()

    def abandon(self) -> None:
        """End at once: frames captured but not taken count as dropped."""
        self.stop()
        self._queue.abandon()

    def join(self, seconds: float) -> None:
        """Wait for the capture thread; frames taken but not decided count as dropped from now."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        # The frames in hand when an exception broke the run off, Ctrl-C at any moment included.
        self._broken_off = self._queue.taken - sum(self._verdicts.values())

    def statistics(self) -> CameraStatistics:
        """Return a snapshot: ``frames`` is never less than the sum of the other counts."""
        # Read against the direction of the frames: what is decided was received before.
        verdicts = dict(self._verdicts)
        dropped = self._queue.dropped + self._broken_off
        fault = self._fault
        silent = time.monotonic() - self._last
        if self._source.live and not fault and silent > SILENT_SECONDS and self._thread.is_alive():
            fault = f"{self.name} has given nothing for {silent:.0f} s"
        return CameraStatistics(
            name=self.name,
            counts=Counts(
                frames=self._queue.received,
                passed=verdicts["pass"],
                rejected=verdicts["reject"],
                no_decision=verdicts["no_decision"],
                dropped=dropped,
            ),
            connected=not fault,
            fault=fault,
            due=not comes_on_demand(self._source) and not self._queue.exhausted,
            gaps=self._gaps,
            unread_parts=unread_parts(self._source),
            transport=self.transport,
        )

    def _capture(self) -> None:
        """The capture thread: every frame of the source goes into the queue."""
        error: BaseException | None = None
        try:
            for frame in islice(self._source, self._max_frames):
                self._last = time.monotonic()
                self._gaps += bool(frame.fault) and not self._fault
                self._fault = frame.fault
                self._queue.put(self._check(frame) if self.policy == "all" else frame)
                self._last = time.monotonic()  # a full queue is not the camera's fault
                if self._stopping:
                    break
        except BaseException as raised:  # noqa: BLE001  # surfaces in the caller's thread
            error = raised
        self._queue.end(error)

    def _check(self, frame: Frame) -> CheckedFrame:
        began = time.perf_counter()
        seen: SeenFrame | None = None
        fault: str | None = None
        if frame.image is not None:
            try:
                seen = SeenFrame(fit_image(frame.image, self._size))
                fault = self._checks.check(seen)
            except ImageError as error:
                fault = error.cause
        checks_ms = (time.perf_counter() - began) * 1e3
        return CheckedFrame(frame, seen, fault, checks_ms)


class FrameQueue(Generic[Item]):
    """The bounded queue between a capture thread and the engine's.

    Every frame put in comes out or is counted dropped.

    Args:
        policy: what happens to a frame when the former one has not been taken yet.
        changed: notified at every change; queues that one thread waits for together share one.
    """

    CAPACITY = 1
    """One frame waits while the next is captured: neither side waits for long for the other."""

    def __init__(self, policy: Policy, changed: threading.Condition | None = None) -> None:
        self._policy = policy
        self._frames: deque[Item] = deque()
        self._changed = changed or threading.Condition()
        self._ended = False
        self._error: BaseException | None = None
        self.received = 0
        """Frames put in."""
        self.taken = 0
        """Frames that came out."""
        self.dropped = 0
        """Frames that a newer one replaced, or that were there when the queue was abandoned."""

    def put(self, frame: Item) -> None:
        """Put a frame in; with policy ``all``, wait until there is room."""
        with self._changed:
            self.received += 1
            if self._policy == "all":
                self._changed.wait_for(lambda: self._ended or len(self._frames) < self.CAPACITY)
            elif len(self._frames) >= self.CAPACITY:
                self._frames.popleft()
                self.dropped += 1
            if self._ended:
                self.dropped += 1
                return
            self._frames.append(frame)
            self._changed.notify_all()

    def get(self, timeout: float) -> Item | None:
        """Take the oldest frame; ``None`` if there is none for ``timeout`` seconds, or at the end.

        Raises:
            BaseException: what ended the source, once the frames before it are taken.
        """
        with self._changed:
            if timeout > 0:
                self._changed.wait_for(lambda: self._frames or self._ended, timeout)
            if self._frames:
                frame = self._frames.popleft()
                self.taken += 1
                self._changed.notify_all()
                return frame
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return None

    @property
    def ready(self) -> bool:
        """Whether :meth:`get` would give a frame, or raise, without waiting."""
        return bool(self._frames) or self._error is not None

    @property
    def exhausted(self) -> bool:
        """Whether neither a frame nor an error will come out any more."""
        with self._changed:
            return self._ended and not self._frames and self._error is None

    def end(self, error: BaseException | None = None) -> None:
        """Say that no more frames will be put in, and why if that is an error."""
        with self._changed:
            self._ended = True
            self._error = error
            self._changed.notify_all()

    def abandon(self) -> None:
        """End at once; frames still waiting count as dropped."""
        with self._changed:
            self.dropped += len(self._frames)
            self._frames.clear()
            self._ended = True
            self._changed.notify_all()


def known_policy(name: str) -> Policy:
    """Return the policy of this name.

    Raises:
        SettingsError: there is none.
    """
    for policy in POLICIES:
        if name == policy:
            return policy
    raise SettingsError(
        f"policy {name!r} is none of {', '.join(POLICIES)}.",
        next_step="use one of these with --policy, or leave it out",
    )
