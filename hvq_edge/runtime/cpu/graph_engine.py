"""What the engines of an exported graph on the CPU have in common."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

from hvq_edge.common.closeable import Closeable
from hvq_edge.common.extras import missing_library
from hvq_edge.errors import BundleError, HvqEdgeError, MissingCapability
from hvq_edge.runtime.contract import Graph, check_threads, graph_inputs, graph_outputs


class CpuGraphEngine(Closeable, ABC):
    """One exported ONNX graph, loaded by a library that is imported now.

    Args:
        graph: what is run.
        threads: threads of one ``run``; ``None``: the library's choice.

    Raises:
        MissingCapability: the library is not installed.
        BundleError: the file is not a graph that it loads, or not one of this category mode.
        SettingsError: ``threads`` is less than one.
    """

    library: ClassVar[str]
    """Its import name, which is the backend's where that has no other."""
    backend = ""
    called: ClassVar[str]
    """How people call it."""
    without: ClassVar[str]
    """What to do where it is missing."""
    unloaded: ClassVar[str]
    """What to do where it loads no graph."""
    compiled_sha256 = ""
    """Of the kept compiled graph that runs in place of the graph."""

    def __init__(self, graph: Graph, *, threads: int | None = None) -> None:
        check_threads(threads)
        try:
            library = importlib.import_module(self.library)
        except ImportError as error:
            raise missing_library(error) or MissingCapability(
                f"{self.called} cannot be imported: {error}.", next_step=self.without
            ) from error
        self._inputs = graph_inputs(graph.category_mode)
        self._outputs = graph_outputs(graph.category_mode)
        try:
            device = self._load(library, graph, threads)
        except HvqEdgeError:
            raise
        except Exception as error:  # the libraries' exceptions share no public base class
            raise BundleError(
                f"{self.called} {library.__version__} cannot load {graph.file}: {error}.",
                next_step=self.unloaded,
            ) from error
        info = graph.info(self.backend or self.library, device)
        self.info = replace(info, plan_sha256=self.compiled_sha256)

    @abstractmethod
    def _load(self, library: Any, graph: Graph, threads: int | None) -> str:  # noqa: ANN401
        """Load the graph, check it, and return what runs it: processor and version."""
