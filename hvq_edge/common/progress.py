"""How long work reports its progress, without knowing who shows it."""

from __future__ import annotations

from typing import Protocol


class ProgressCallback(Protocol):
    """Called after each unit of work.

    Args:
        stage: what is being done, a few words, the same text for the whole stage.
        done: units finished so far.
        total: units in the stage.
        note: something worth seeing beside the bar (a loss, a file name); may be empty.
    """

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """Report progress."""


def silent(stage: str, done: int, total: int, note: str = "") -> None:
    """The default: show nothing."""
