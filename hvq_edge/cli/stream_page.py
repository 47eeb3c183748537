"""The live page of a run of ``hvq-edge stream``."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvq_edge.bundle.manifest import Bundle
    from hvq_edge.runtime.engine import Engine
    from hvq_edge.stream.inspector import Inspector
    from hvq_edge.stream.live_page.history import History
    from hvq_edge.stream.live_page.serve import Serving
    from hvq_edge.stream.settings import StreamSettings

WAITING = 8
"""Decisions with their images that may wait for the page: it shows the newest, not all."""


def serve_page(
    settings: StreamSettings,
    bundle: Bundle,
    engine: Engine,
    inspector: Inspector,
    history: History | None,
) -> AbstractContextManager[Serving | None]:
    """Serve the live page that the settings ask for, if they do.

    Thresholds are saved to the bundle from the page, unless its signature is required: a saved
    threshold would end that.

    Raises:
        SettingsError: the address or the port cannot be used, or the token file is no good.
        MissingCapability: a package of the extra ``factory`` is not installed.
    """
    if settings.page is None or history is None:
        return nullcontext()
    from hvq_edge.bundle.thresholds import save_threshold
    from hvq_edge.common.extras import needed
    from hvq_edge.runtime.fixed_category import ChosenCategoryEngine
    from hvq_edge.stream.live_page.page_view import CategoryChoice, PageView
    from hvq_edge.stream.live_page.serve import serve

    with needed("the live page"):
        from hvq_edge.stream.live_page.prometheus_metrics import render
    info = engine.info
    save = partial(save_threshold, bundle.path, info.precision)
    category = None
    if isinstance(engine, ChosenCategoryEngine):
        category = CategoryChoice(info.categories, lambda: engine.chosen, engine.choose)
    view = PageView(
        history,
        inspector.controls,
        inspector.statistics,
        title=f"{bundle.path} with {info.precision} on {info.backend}",
        metrics=render,
        save_threshold=save if settings.require_signature is None else None,
        category=category,
    )
    return serve(settings.page, view)
