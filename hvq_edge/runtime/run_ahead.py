"""Many batches through an engine, the next one given before the last one's result is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hvq_edge.runtime.engine import Engine, EngineOutput, Frames


class Promised(Protocol):
    """A batch that an engine has been given."""

    def result(self) -> EngineOutput:
        """Wait for the result."""
        ...


@runtime_checkable
class Submitting(Protocol):
    """An engine that copies one batch while it computes another."""

    def submit(self, frames: Frames, category: NDArray[np.int32] | None = None) -> Promised:
        """Give a batch without waiting for its result; takes what ``run`` does."""
        ...


def run_ahead(
    engine: Engine, batches: Iterable[Frames], index: int | None = None
) -> Iterator[EngineOutput]:
    """Judge batches in order, with one ahead of the result where the engine can.

    That raises frames a second and makes each result come a batch later: for files and tests, and
    for cameras whose frames wait anyway.

    Args:
        engine: any; one that cannot take a batch ahead runs each as it comes.
        batches: each uint8 ``[batch, side, side, 3]``; read one ahead.
        index: the category of all frames, for an engine that must be told.

    Raises:
        InputError: frames of another shape or dtype; or ``index`` is missing or out of range.
    """
    if not isinstance(engine, Submitting):
        for frames in batches:
            yield engine.run(frames, _each(frames, index))
        return
    ahead: Promised | None = None
    for frames in batches:
        given = engine.submit(frames, _each(frames, index))
        if ahead is not None:
            yield ahead.result()
        ahead = given
    if ahead is not None:
        yield ahead.result()


def _each(frames: Frames, index: int | None) -> NDArray[np.int32] | None:
    return None if index is None else np.full(len(frames), index, dtype=np.int32)
