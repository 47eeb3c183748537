"""Engines that tell a graph with category input what it sees, so that nobody else has to."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.closeable import Closeable
from hvq_edge.errors import InputError
from hvq_edge.runtime.contract import FRAMES, graph_feed
from hvq_edge.runtime.engine import Engine, EngineInfo, EngineOutput, Frames
from hvq_edge.runtime.run_ahead import Promised, Submitting


@dataclass(frozen=True)
class _Named:
    """A batch on its way; its result names the category as the engine on top does."""

    result_beneath: Callable[[], EngineOutput]
    index: int

    def result(self) -> EngineOutput:
        """Wait for the result."""
        output = self.result_beneath()
        output["category"] = np.full(len(output["score"]), self.index, dtype=np.int32)
        return output


class _Telling(Closeable):
    """What both kinds have in common; see there."""

    def __init__(self, engine: Engine, info: EngineInfo) -> None:
        self._engine = engine
        self.info = info

    def run(self, frames: Frames, category: NDArray[np.int32] | None = None) -> EngineOutput:
        """Judge a batch; see :meth:`hvq_edge.runtime.engine.Engine.run`."""
        checked, told, named = self._feed(frames, category)
        return _Named(lambda: self._engine.run(checked, told), named).result()

    def submit(self, frames: Frames, category: NDArray[np.int32] | None = None) -> Promised:
        """Give a batch without waiting for its result, where the engine beneath can; else run it.

        Takes and raises what :meth:`run` does.
        """
        checked, told, named = self._feed(frames, category)
        if isinstance(self._engine, Submitting):
            return _Named(self._engine.submit(checked, told).result, named)
        output = self._engine.run(checked, told)
        return _Named(lambda: output, named)

    def close(self) -> None:
        """Close the engine beneath; calling it twice is fine."""
        self._engine.close()

    @abstractmethod
    def _indices(self) -> tuple[int, int]:
        """Return the index that the engine beneath is told, and the one that the result names."""

    def _feed(
        self, frames: Frames, category: NDArray[np.int32] | None
    ) -> tuple[Frames, NDArray[np.int32], int]:
        checked: Frames = graph_feed(frames, category, self.info)[FRAMES]
        told, named = self._indices()
        return checked, np.full(len(checked), told, dtype=np.int32), named


class FixedCategoryEngine(_Telling):
    """An engine with category input that judges every frame as one category, and knows no other.

    Args:
        engine: an engine that takes ``category``; closed together with this one.
        index: the category's index in ``engine``.
    """

    def __init__(self, engine: Engine, index: int) -> None:
        names = (engine.info.categories[index],)
        super().__init__(engine, replace(engine.info, categories=names, category_mode="one"))
        self._index = index

    def _indices(self) -> tuple[int, int]:
        return self._index, 0


class ChosenCategoryEngine(_Telling):
    """An engine with category input that judges frames as the category last chosen.

    It looks like an engine of category mode ``auto``: it keeps all categories, is given none, and
    each result names the one that it was judged as. Any thread may choose while others run.

    Args:
        engine: an engine that takes ``category``; closed together with this one.
        category: the name to begin with.

    Raises:
        InputError: the engine has no such category.
    """

    def __init__(self, engine: Engine, category: str) -> None:
        super().__init__(engine, replace(engine.info, category_mode="auto"))
        self.choose(category)

    @property
    def chosen(self) -> str:
        """The category that the next batch is judged as."""
        return self.info.categories[self._index]

    def choose(self, category: str) -> None:
        """Judge all batches given from now on as this category; those on their way keep theirs.

        Raises:
            InputError: the engine has no such category; the former one stays.
        """
        self._index = index_of(category, self.info, "this engine")  # one assignment: no lock needed

    def _indices(self) -> tuple[int, int]:
        index = self._index  # read once: another thread may choose meanwhile
        return index, index


def with_category(engine: Engine, category: str, target: Path | str | Bundle) -> Engine:
    """Return an engine for one category on top of one that takes a category or is for it already.

    Raises:
        InputError: the engine has no such category; it is closed.
    """
    if engine.info.category_mode == "one" and engine.info.categories == (category,):
        return engine
    try:
        return FixedCategoryEngine(engine, index_of(category, engine.info, target))
    except InputError:
        engine.close()
        raise


def check_takes_category(bundle: Bundle, category: str) -> None:
    """Check that a bundle's model can be told this category, before it is loaded.

    Raises:
        InputError: no such category, or the model chooses it itself.
    """
    bundle.category_index(category)
    if bundle.manifest.category_mode == "auto":
        raise InputError(
            f"category {category!r} was given, but the bundle {bundle.path} chooses the "
            "category itself (category mode auto).",
            next_step=f"leave it out, or run hvq-edge export --category {category} "
            "(or --category input)",
        )


def index_of(category: str, info: EngineInfo, owner: object) -> int:
    """Return a category's index.

    Raises:
        InputError: ``owner`` has no such category.
    """
    if category not in info.categories:
        raise InputError(
            f"{owner} has no category {category!r}; it has {', '.join(info.categories)}.",
            next_step="use one of these names",
        )
    return info.categories.index(category)
