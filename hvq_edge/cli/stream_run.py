"""A run of ``hvq-edge stream``: everything is opened, run to its end, and closed again."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING

from hvq_edge.cli.console import messages, results

if TYPE_CHECKING:
    from hvq_edge.bundle.manifest import Bundle
    from hvq_edge.runtime.engine import EngineInfo
    from hvq_edge.stream.controls import Controls
    from hvq_edge.stream.inspector import Inspector
    from hvq_edge.stream.live_page.history import History
    from hvq_edge.stream.settings import StreamSettings
    from hvq_edge.stream.sinks.opened_sinks import OpenSinks
    from hvq_edge.stream.sinks.sink import Draw
    from hvq_edge.stream.sources.source import Source

FOLDER_FRAMES_PER_SECOND = 4.0
"""At which the annotated video of a folder of images plays: slow enough to look at each."""


def run_stream(settings: StreamSettings, *, as_json: bool) -> bool:
    """Inspect until every camera has ended or a signal asks to stop.

    With a live page, files that have ended stay on it until then.

    Args:
        settings: checked settings.
        as_json: decisions as JSON lines on standard output, everything else on standard error.

    Returns:
        Whether Ctrl-C ended it.

    Raises:
        HvqEdgeError: something cannot be opened, or the engine failed.
    """
    from hvq_edge.bundle.thresholds import thresholds_of
    from hvq_edge.cli.stop_signals import StopSignals
    from hvq_edge.cli.stream_engine import open_engine_of, signed_bundle
    from hvq_edge.cli.stream_page import serve_page
    from hvq_edge.cli.stream_view import DecisionLines, live_counter, print_summary
    from hvq_edge.stream.capture.open_cameras import open_cameras
    from hvq_edge.stream.controls import Controls
    from hvq_edge.stream.drawing.overlay import Overlay
    from hvq_edge.stream.drawing.window import Window, has_screen
    from hvq_edge.stream.inspector import Inspector
    from hvq_edge.stream.sinks.files.json_lines import JsonLines
    from hvq_edge.stream.sinks.opened_sinks import CLOSE_SECONDS, LEAST_CLOSE_SECONDS
    from hvq_edge.stream.sinks.sink import Sink
    from hvq_edge.stream.watchdog import Watchdog

    bundle = signed_bundle(settings)
    with ExitStack() as closing:
        reasons: list[str] = []
        engine = open_engine_of(settings, bundle, reasons.append)
        closing.callback(engine.close)
        cameras = open_cameras(settings.cameras)
        closing.callback(cameras.close)
        _announce(cameras.sources, engine.info, reasons if settings.precision == "auto" else [])
        _warn_of_missing_thresholds(bundle, engine.info)

        controls = Controls(thresholds_of(bundle, engine.info.precision))
        draw = Overlay(controls)
        sinks: list[Sink] = [*cameras.sinks]
        inspector = Inspector(
            engine,
            bundle,
            cameras.sources,
            policy=settings.policy,
            sinks=sinks,
            controls=controls,
            rule=settings.decision,
            max_frames=settings.max_frames,
        )
        counter_shown = messages.is_terminal and not as_json
        # Above a live counter, lines must come from the console that draws it.
        lines = messages if counter_shown and results.is_terminal else results
        several = len(cameras.sources) > 1
        told = JsonLines(sys.stdout) if as_json else DecisionLines(lines, several=several)
        sinks.append(told)
        opened = _open_sinks(settings, bundle, inspector, cameras.sources, draw)
        closing.callback(opened.close)
        sinks.append(opened)
        history = _open_page(settings, controls, opened)
        if has_screen(os.environ) if settings.display is None else settings.display:
            window = Window(draw, quit_asked=inspector.stop)
            closing.callback(window.close)
            sinks.append(window)

        serving = closing.enter_context(serve_page(settings, bundle, engine, inspector, history))
        if serving is not None:
            messages.print(f"Live page: {serving.token_url}", markup=False, soft_wrap=True)
        signals = closing.enter_context(StopSignals(inspector.stop))
        closing.enter_context(Watchdog(inspector.statistics))
        with live_counter(inspector, shown=counter_shown):
            _inspect(inspector)
        live = "latest" in inspector.policies
        counts = asdict(inspector.statistics().counts)
        # What a hanging camera took of the time is not there for the sinks any more.
        left = max(CLOSE_SECONDS - signals.seconds_since, LEAST_CLOSE_SECONDS)
        opened.close(left if live else None, counts)
        print_summary(messages if as_json else results, inspector, settings.out)
        if serving is not None and not signals.asked:
            messages.print("All frames are inspected. The live page stays until Ctrl-C.")
            signals.wait()
    if signals.interrupted:
        messages.print("Interrupted.")
    return signals.interrupted


def _inspect(inspector: Inspector) -> None:
    """Inspect to the end."""
    try:
        with inspector:
            for _ in inspector:
                pass  # the sinks have it already
    except BrokenPipeError:  # whoever read standard output has gone, as head does: a way to stop
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_page(settings: StreamSettings, controls: Controls, opened: OpenSinks) -> History | None:
    """Make what the live page shows a sink among the others, on a thread of its own."""
    if settings.page is None:
        return None
    from hvq_edge.cli.stream_page import WAITING
    from hvq_edge.stream.live_page.history import History
    from hvq_edge.stream.sinks.sink_thread import SinkThread

    history = History(controls)
    opened.threads.append(SinkThread(history, "page", "drop", WAITING))
    return history


def _video_wanted(settings: StreamSettings, sources: tuple[Source, ...]) -> bool:
    """Say whether to keep an annotated video: by default not one that grows without end."""
    if settings.video is not None:
        return settings.video
    endless = any(source.live for source in sources) or any(
        camera.triggered or str(camera.camera).startswith("watch:") for camera in settings.cameras
    )
    return settings.max_frames is not None or not endless


def _open_sinks(
    settings: StreamSettings,
    bundle: Bundle,
    inspector: Inspector,
    sources: tuple[Source, ...],
    draw: Draw,
) -> OpenSinks:
    from importlib.metadata import version

    from hvq_edge.common.atomic import sha256_of
    from hvq_edge.stream.sinks.open_sinks import SourceInfo, open_sinks

    names = [camera.name for camera in inspector.statistics().cameras]
    rates = [source.frames_per_second or FOLDER_FRAMES_PER_SECOND for source in sources]
    return open_sinks(
        settings.sinks,
        settings.out,
        [SourceInfo(name, rate) for name, rate in zip(names, rates, strict=True)],
        draw,
        when_full="drop" if "latest" in inspector.policies else "wait",
        video=_video_wanted(settings, sources),
        session={
            "version": version("hvq-edge"),
            "bundle_sha256": sha256_of(bundle.path / "bundle.json"),
            "thresholds": inspector.controls.thresholds,
            "cameras": names,
        },
        controls=inspector.controls,
    )


def _announce(sources: tuple[Source, ...], info: EngineInfo, reasons: Sequence[str]) -> None:
    names = ", ".join(source.name for source in sources)
    messages.print(
        f"Inspecting {names} with {info.precision} on {info.backend} ({info.device}).",
        markup=False,
        soft_wrap=True,
    )
    for reason in reasons:
        messages.print(f"Why {reason}.", markup=False, soft_wrap=True)


def _warn_of_missing_thresholds(bundle: Bundle, info: EngineInfo) -> None:
    from hvq_edge.bundle.thresholds import thresholds_of

    thresholds = thresholds_of(bundle, info.precision)
    missing = [name for name in info.categories if name not in thresholds]
    if missing:
        messages.print(
            f"Warning: the bundle has no {info.precision} threshold for {', '.join(missing)}: "
            "frames of these lead to no decision.\n"
            "Next:    run hvq-edge export again on a run trained with held-out good images",
            markup=False,
            soft_wrap=True,
        )
