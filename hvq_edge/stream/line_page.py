"""What the live page of a line is given to show, to change and to ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path

from hvq_edge.bundle.judged_images import find_labelled
from hvq_edge.bundle.manifest import MANIFEST_NAME
from hvq_edge.bundle.opened import Bundle
from hvq_edge.bundle.thresholds import save_threshold
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.extras import needed
from hvq_edge.explain.explainer import Explainer
from hvq_edge.predict.predictor import Predictor
from hvq_edge.runtime.engine import Engine
from hvq_edge.runtime.fixed_category import ChosenCategoryEngine
from hvq_edge.runtime.shared_engine import SharedEngine
from hvq_edge.stream.capture.open_cameras import Cameras
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.live_page.history import History
from hvq_edge.stream.live_page.judge import ImageJudge
from hvq_edge.stream.live_page.page_view import CategoryChoice, PageView
from hvq_edge.stream.live_page.serve import Serving, serve
from hvq_edge.stream.live_page.settings import LivePageSettings
from hvq_edge.stream.log.reviews import REVIEW, Review, append_review
from hvq_edge.stream.review.desk import ReviewDesk
from hvq_edge.stream.settings import StreamSettings
from hvq_edge.stream.sinks.all_sinks import OpenSinks
from hvq_edge.stream.sources.http_trigger import HttpTrigger

REVIEW_DAYS = 14.0
"""Decisions that the live page shows to be judged; hvq-edge review knows the older ones as well."""


@contextmanager
def serve_page(
    page: LivePageSettings,
    settings: StreamSettings,
    bundle: Bundle,
    engine: SharedEngine,
    inspector: Inspector,
    cameras: Cameras,
    opened: OpenSinks,
    history: History,
) -> Iterator[Serving]:
    """Serve the live page of a line as long as the ``with`` block runs.

    Args:
        page: where.
        settings: of the line.
        bundle: whose model judges.
        engine: that judges.
        inspector: of the line.
        cameras: of the line.
        opened: its sinks.
        history: that takes its decisions.
    """
    view = _page_view(settings, bundle, engine.judges, inspector, history)
    triggers = {one.camera: one for one in cameras.sinks if isinstance(one, HttpTrigger)}
    desk = _review_desk(settings, opened, history.typical)
    with (
        _image_judge(bundle, engine, inspector) as judge,
        serve(
            page,
            view,
            judge=judge,
            triggers=triggers,
            review=desk,
            explainer=Explainer(bundle, judge, engine.info.precision),
        ) as serving,
    ):
        yield serving


def _page_view(
    settings: StreamSettings, bundle: Bundle, engine: Engine, inspector: Inspector, history: History
) -> PageView:
    """Return what the live page shows, and what it may change.

    Thresholds are saved to the bundle from the page, unless its signature is required: a saved
    threshold would end that.
    """
    with needed("the live page"):
        from hvq_edge.stream.live_page.prometheus_metrics import render
    info = engine.info
    save = partial(save_threshold, bundle, info.precision)
    category = None
    if isinstance(engine, ChosenCategoryEngine):
        category = CategoryChoice(info.categories, lambda: engine.chosen, engine.choose)

    def acknowledge(camera: str) -> None:
        inspector.watches[camera].acknowledge()

    return PageView(
        history,
        inspector.controls,
        inspector.statistics,
        title=f"{bundle.path} with {info.precision} on {info.backend}",
        metrics=partial(
            render,
            running={
                "version": version("hvq-edge"),
                "bundle_sha256": sha256_of(bundle.path / MANIFEST_NAME),
                "precision": info.precision,
                "backend": info.backend,
            },
        ),
        save_threshold=save if settings.require_signature is None else None,
        labelled=find_labelled(bundle, info.precision),
        acknowledge_drift=acknowledge if settings.drift.watch else None,
        category=category,
    )


def _review_desk(
    settings: StreamSettings, opened: OpenSinks, typical: Mapping[str, float]
) -> ReviewDesk | None:
    """Return where people judge this line's decisions; ``None`` where none are recorded."""
    if opened.log is None:
        return None
    log = opened.log.path
    head = None if settings.sinks.log.head is None else Path(settings.sinks.log.head)

    def write(review: Review) -> int:
        if opened.closed:  # the files have ended, the page stays
            return append_review(log, review, head)
        return opened.record(REVIEW, review.details())

    return ReviewDesk(log, write, typical, days=REVIEW_DAYS)


def _image_judge(bundle: Bundle, shared: SharedEngine, inspector: Inspector) -> ImageJudge:
    """Return what judges the images that requests bring to the page, as the line would now."""

    def as_the_line(model: Predictor) -> None:
        model.thresholds = inspector.controls.thresholds

    return ImageJudge(lambda: Predictor(shared.guest, bundle), before_each=as_the_line)
