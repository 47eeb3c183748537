"""A bundle's graphs with new prototypes: in memory, and as a bundle of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto

from hvq_edge.bundle.learnt import CENTRES
from hvq_edge.bundle.manifest import Precision, record_of
from hvq_edge.bundle.opened import Bundle
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.data.images import read_frame
from hvq_edge.export.learn.grown import add_centre, pooled
from hvq_edge.export.learn.judged import JudgedImage
from hvq_edge.export.learn.new_prototypes import learnt_centres
from hvq_edge.export.learn.tables import (
    Centres,
    read_centres,
    tables_of,
    with_tokens,
    write_centres,
)

Tokens = Mapping[str, NDArray[np.float32]]
"""By table: what meets its prototypes, ``[images, tokens, channels]``; and where the graph chooses
the category, what meets the classifier's centres, ``[images, channels]``."""


class Change(NamedTuple):
    """New prototypes of one category in one table; or its new centre, which takes no place."""

    table: str
    category: str
    columns: tuple[int, ...]
    centres: Centres


class Graphs:
    """The graphs of a bundle, which give copies with other prototypes.

    Args:
        bundle: whose files are checked as they are read.

    Raises:
        BundleError: a file is changed, or the graphs have no prototypes.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self.models: dict[Precision, ModelProto] = {
            precision: onnx.load_from_string(bundle.read(name))
            for precision, name in bundle.manifest.models.items()
        }
        self._float = self.models["fp32"]
        self.tables = tables_of(self._float)

    def index(self, category: str) -> int | None:
        """Return a category's place in the tables; ``None``: the graph serves it alone."""
        alone = self._bundle.manifest.category_mode == "one"
        return None if alone else self._bundle.category_index(category)

    def centres(self, table: str, category: str) -> Centres:
        """Return a category's prototypes as they are."""
        return read_centres(self._float, table, self.index(category))

    def tokens(
        self, images: Sequence[JudgedImage], on_progress: ProgressCallback = silent
    ) -> Tokens:
        """Return what meets the prototypes of each image's category, from the float32 graph.

        Args:
            images: that the graph takes for their category.
            on_progress: called after each.
        """
        graph, outputs = with_tokens(self._float)
        if (met := pooled(self._float)) is not None:
            outputs[CENTRES] = met
            graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(met))
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        found: dict[str, list[NDArray[np.float32]]] = {table: [] for table in outputs}
        for done, image in enumerate(images, start=1):
            feed = {"frames": read_frame(image.path, self._bundle.manifest.frame_shape)[None]}
            if self._bundle.manifest.category_mode == "input":
                index = self._bundle.category_index(image.category)
                feed["category"] = np.array([index], np.int32)
            values = session.run(list(outputs.values()), feed)
            for table, value in zip(outputs, values, strict=True):
                found[table].append(value[0])
            on_progress("features", done, len(images))
        return {table: np.stack(values) for table, values in found.items()}

    def changes(
        self, category: str, tokens: Tokens, unlike: NDArray[np.bool_] | None = None
    ) -> list[Change]:
        """Say which prototypes a category gets from tokens of its new images, and which centre.

        Args:
            category: that learns.
            tokens: of its new images.
            unlike: which of them are beyond the reach of every centre: these get one of their own.
        """
        made = []
        for table, values in tokens.items():
            if table == CENTRES:
                if unlike is not None and unlike.any():
                    made.append(Change(table, category, (), values[unlike].mean(0)[None]))
                continue
            columns, centres = learnt_centres(self.centres(table, category), values)
            made.append(Change(table, category, columns, centres[list(columns)]))
        return made

    def write(self, folder: Path, changes: Sequence[Change]) -> Bundle:
        """Write the graphs with changes, every precision; return them as a bundle of no more.

        Its manifest is not written.
        """
        for precision, graph in self.models.items():
            made = ModelProto()
            made.CopyFrom(graph)
            for change in changes:
                index = self.index(change.category)
                if change.table == CENTRES:
                    assert index is not None  # such a graph chooses among several
                    add_centre(made, change.centres[0], index)
                    continue
                write_centres(made, change.table, index, change.columns, change.centres)
            onnx.save(made, folder / self._bundle.manifest.models[precision])
        names = self._bundle.manifest.models.values()
        files = {name: record_of(folder / name) for name in names}
        return Bundle(folder, self._bundle.manifest.model_copy(update={"files": files}))
