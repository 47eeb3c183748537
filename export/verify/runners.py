"""Polygraphy runners for our engines, so that its Comparator drives every comparison."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata

from hvq_edge.runtime.engine import Engine


class EngineRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
    """Any engine as a Polygraphy runner.

    Args:
        name: shown in tables.
        open_engine: called when the runner is activated.
        takes_category: the feed has a ``category`` input that the engine must be given. The
            PyTorch engine takes one although a graph of mode ``one`` has none.
    """

    def __init__(self, name: str, open_engine: Callable[[], Engine], takes_category: bool) -> None:
        super().__init__(name=name)
        self._open_engine = open_engine
        self._takes_category = takes_category

    def activate_impl(self) -> None:
        """Open the engine."""
        self._engine = self._open_engine()

    def get_input_metadata_impl(self) -> TensorMetadata:
        """Return names, dtypes and shapes of the inputs."""
        side = self._engine.info.input_side
        metadata = TensorMetadata().add("frames", np.uint8, (None, side, side, 3))
        if self._takes_category:
            metadata.add("category", np.int32, (None,))
        return metadata

    def infer_impl(self, feed_dict: dict[str, NDArray[Any]]) -> OrderedDict[str, NDArray[Any]]:
        """Run one feed."""
        start = time.perf_counter()
        output = self._engine.run(feed_dict["frames"], feed_dict.get("category"))
        self.inference_time = time.perf_counter() - start
        return OrderedDict(output)  # type: ignore[arg-type]

    def deactivate_impl(self) -> None:
        """Close the engine."""
        self._engine.close()
