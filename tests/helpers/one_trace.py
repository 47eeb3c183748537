"""Exports that trace a net once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from helpers.graphs import GRAPH_RECORD

from hvq_edge.export import export_run


@contextmanager
def one_trace() -> Iterator[None]:
    """Keep the trace away with which an export counts what folding saves.

    It takes as long as the first, and the small trained bundle, exported without this, has the
    count.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_run, "compare_with_plain", lambda *_: GRAPH_RECORD)
        yield
