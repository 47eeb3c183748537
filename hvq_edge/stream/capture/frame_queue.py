"""The bounded queue between a capture thread and the engine's thread."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, Literal, TypeVar, get_args

from hvq_edge.errors import SettingsError

Policy = Literal["latest", "all"]
"""``latest``: the newest frame wins, older ones are dropped and counted. ``all``: none is dropped;
the source waits while the engine is busy."""
POLICIES: tuple[Policy, ...] = get_args(Policy)

Item = TypeVar("Item")


class FrameQueue(Generic[Item]):
    """Hands frames from one thread to another; every frame put in comes out or is counted dropped.

    Args:
        policy: what happens to a frame when the former one has not been taken yet.
        changed: notified at every change; queues that one thread waits for together share one.
    """

    CAPACITY = 1
    """With one frame waiting and one being captured, neither side waits for long for the other."""

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
