"""An inspection line as its settings describe it: all that ``hvq-edge stream`` does, from Python.

::

    settings = load_stream_settings(Path("stream.toml"))
    with open_line(settings) as line:
        for decision in line:
            ...
"""

from __future__ import annotations

import logging
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from hvq_edge.bundle.integrity.signature import doubts_without_key, require_signature
from hvq_edge.bundle.opened import Bundle, open_bundle
from hvq_edge.bundle.thresholds import last_changes, typical_scores_of
from hvq_edge.common.atomic import sha256_of
from hvq_edge.common.progress import ProgressCallback, silent
from hvq_edge.errors import SettingsError
from hvq_edge.runtime.choice.measured_choice import GRAPH_BACKENDS
from hvq_edge.runtime.cpu.onnxruntime_providers import with_provider
from hvq_edge.runtime.engine import Engine, EngineInfo
from hvq_edge.runtime.shared_engine import SharedEngine
from hvq_edge.stream.capture.open_cameras import Cameras, open_cameras
from hvq_edge.stream.drawing.overlay import Overlay
from hvq_edge.stream.drawing.window import Window, has_screen
from hvq_edge.stream.drift.kept import NAME, go_on, keep
from hvq_edge.stream.inspection import open_stream_engine
from hvq_edge.stream.inspector import Inspector
from hvq_edge.stream.line import Line
from hvq_edge.stream.settings import StreamSettings
from hvq_edge.stream.sinks.all_sinks import OpenSinks
from hvq_edge.stream.sinks.faults import Report
from hvq_edge.stream.sinks.open_sinks import SourceInfo, open_sinks
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.stream.sources.source import comes_on_demand
from hvq_edge.verdict.calibrate.expected_rate import expected_rate
from hvq_edge.verdict.defaults import CONFIDENCE, FALSE_REJECT
from hvq_edge.verdict.tolerance_bound import ThresholdRule

if TYPE_CHECKING:
    from hvq_edge.stream.calibrate_from_stream import StreamCalibration
    from hvq_edge.stream.live_page.history import History

logger = logging.getLogger(__name__)

FOLDER_FRAMES_PER_SECOND = 4.0
"""At which the annotated video of a folder of images plays: slow enough to look at each."""
DESCRIPTORS = 8192
"""Files and connections that a line may have open, where the system lets it."""
PAGE_WAITING = 8
"""Decisions with their images that may wait for the page: it shows the newest, not all."""


@contextmanager
def open_line(
    settings: StreamSettings, *, sinks: Sequence[Sink] = (), report: Report | None = None
) -> Iterator[Line]:
    """Open the bundle, engine, cameras, sinks, window and live page that settings ask for.

    The process's soft limit of open files is raised, as far as the hard one allows.

    Args:
        settings: checked settings.
        sinks: take every decision besides, before those of the settings.
        report: told once of each fault of a sink, on the sinks' threads; default: it is logged.

    Yields:
        The line. All of it is closed at the end of the block; without an error, finished before.

    Raises:
        GateFailed: the signature that is required does not hold.
        HvqEdgeError: something cannot be opened.
    """
    _allow_descriptors()
    bundle = _signed_bundle(settings)
    with ExitStack() as closing:
        reasons: list[str] = []
        chosen = reasons.append if settings.precision == "auto" else None
        engine = _open_engine(settings, bundle, chosen)
        closing.callback(engine.close)
        cameras = open_cameras(settings.cameras, settings.sinks)
        closing.callback(cameras.close)
        listening: list[Sink] = [*cameras.sinks, *sinks]
        shared = SharedEngine(engine)
        inspector = Inspector(
            shared,
            bundle,
            cameras.sources,
            policy=settings.policy,
            sinks=listening,
            rule=settings.decision,
            drift=settings.drift,
            max_frames=settings.max_frames,
        )
        typical = typical_scores_of(bundle, engine.info.precision)
        draw = Overlay(inspector.controls, typical)
        opened = _open_sinks(settings, bundle, inspector, cameras, draw, report)
        closing.callback(opened.close)
        listening.append(opened)
        changes = last_changes(bundle.manifest)
        line = Line(engine.info, inspector, opened, reasons=reasons, last_changes=changes)
        drifts = {name: one.drift for name, one in inspector.watches.items() if one.drift}
        if settings.out is not None and drifts:
            kept = (settings.out / NAME, drifts, _model_of(bundle, engine.info))
            go_on(*kept)
            line.keep = partial(keep, *kept)
        history: History | None = None
        if settings.page is not None:
            from hvq_edge.stream.live_page.history import History

            history = History(inspector.controls, typical)
            opened.threads.append(SinkThread(history, "page", "drop", PAGE_WAITING))
        if has_screen(os.environ) if settings.display is None else settings.display:
            window = Window(draw, quit_asked=inspector.stop)
            closing.callback(window.close)
            listening.append(window)
        if settings.page is not None and history is not None:
            from hvq_edge.stream.line_page import serve_page

            page = serve_page(
                settings.page, settings, bundle, shared, inspector, cameras, opened, history
            )
            line.page = closing.enter_context(page)
        closing.callback(line.close)
        yield line
        line.finish()


def _allow_descriptors() -> None:
    """Let this process open as many files and connections as it may allow itself, within reason.

    The usual soft limit of 1024 is for programs that use ``select``: cameras, receivers, the log
    and browsers together must not come near it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def learn_thresholds(
    settings: StreamSettings,
    frames: int,
    *,
    false_reject: float = FALSE_REJECT,
    confidence: float = CONFIDENCE,
    rule: ThresholdRule = expected_rate,
    force: bool = False,
    on_camera: Callable[[str], None] | None = None,
    on_progress: ProgressCallback = silent,
) -> StreamCalibration:
    """Learn thresholds from a camera that shows good parts only, and write them to the bundle.

    Args:
        settings: of the line: its region, rotation and trigger apply as they will when it inspects.
        frames: usable frames to take.
        false_reject: share of good parts that may be rejected at most.
        confidence: of the upper bound.
        rule: how a threshold follows from scores.
        force: write thresholds that look harmful all the same.
        on_camera: told the camera's name when it is open: now good parts have to be shown.
        on_progress: called after each usable frame.

    Raises:
        GateFailed: the thresholds would probably let defects pass; nothing is written.
        SettingsError: several cameras, or a signature is required.
        HvqEdgeError: something cannot be opened; see also
            :func:`hvq_edge.stream.calibrate_from_stream.calibrate_from_stream`.
    """
    from hvq_edge.stream.calibrate_from_stream import calibrate_from_stream

    if len(settings.cameras) > 1:
        raise SettingsError(
            "thresholds are learnt from one camera at a time: they are the bundle's, not a "
            "camera's.",
            next_step="give one --camera with --calibrate",
        )
    if settings.require_signature is not None:
        raise SettingsError(
            "new thresholds would end the signature that is required.",
            next_step="calibrate without --require-signature, then sign the bundle again",
        )
    bundle = open_bundle(settings.bundle)
    with ExitStack() as closing:
        engine = _open_engine(settings, bundle)
        closing.callback(engine.close)
        cameras = open_cameras(settings.cameras, settings.sinks)
        closing.callback(cameras.close)
        (source,) = cameras.sources
        if on_camera is not None:
            on_camera(source.name)
        return calibrate_from_stream(
            engine,
            bundle,
            source,
            frames,
            false_reject=false_reject,
            confidence=confidence,
            rule=rule,
            force=force,
            on_progress=on_progress,
        )


def _signed_bundle(settings: StreamSettings) -> Bundle:
    """Open the bundle of the settings; where a signature is required, only if it holds."""
    if settings.require_signature is None:
        bundle = open_bundle(settings.bundle)
        for doubt in doubts_without_key(bundle):
            logger.warning("the signature of %s does not hold: %s", bundle.path, doubt)
        return bundle
    # Before the engine is known: an engine of the folder must be signed wherever it may be taken.
    may_run_engines = settings.server is None and settings.backend not in GRAPH_BACKENDS
    return require_signature(
        settings.bundle, settings.require_signature, engines=may_run_engines
    ).bundle


def _model_of(bundle: Bundle, info: EngineInfo) -> str:
    """Name what judges: values of another model, or of another precision, are no comparison."""
    models = {str(precision): name for precision, name in bundle.manifest.models.items()}
    record = bundle.manifest.files.get(models.get(info.precision, ""))
    return f"{info.precision} {record.sha256 if record else ''}"


def _open_engine(
    settings: StreamSettings, bundle: Bundle, on_choice: Callable[[str], None] | None = None
) -> Engine:
    return open_stream_engine(
        bundle,
        precision=settings.precision,
        backend=with_provider(settings.backend, settings.provider),
        category=settings.category,
        server=settings.server,
        on_choice=on_choice,
    )


def _open_sinks(
    settings: StreamSettings,
    bundle: Bundle,
    inspector: Inspector,
    cameras: Cameras,
    draw: Overlay,
    report: Report | None,
) -> OpenSinks:
    names = [camera.name for camera in inspector.statistics().cameras]
    rates = [source.frames_per_second or FOLDER_FRAMES_PER_SECOND for source in cameras.sources]
    return open_sinks(
        settings.sinks,
        settings.out,
        [SourceInfo(name, rate) for name, rate in zip(names, rates, strict=True)],
        draw,
        when_full="drop" if "latest" in inspector.policies else "wait",
        video=_video_wanted(settings, cameras),
        session={
            "version": version("hvq-edge"),
            "bundle_sha256": sha256_of(bundle.path / "bundle.json"),
            "thresholds": inspector.controls.thresholds,
            "cameras": names,
            "page": settings.page is not None,
        },
        controls=inspector.controls,
        unlike=lambda camera: inspector.watches[camera].likeness.said,
        drift=lambda camera: inspector.watches[camera].alarms,
        transport=inspector.transport,
        report=report,
    )


def _video_wanted(settings: StreamSettings, cameras: Cameras) -> bool:
    """Say whether to keep an annotated video: by default not one that grows without end."""
    if settings.video is not None:
        return settings.video
    endless = any(source.live or comes_on_demand(source) for source in cameras.sources) or any(
        camera.triggered or str(camera.camera).startswith("watch:") for camera in settings.cameras
    )
    return settings.max_frames is not None or not endless
