"""``hvq-edge stream``: inspect a camera, a video or a folder of pictures."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from hvq_edge.cli.console import messages, results
from hvq_edge.cli.options import (
    DEFAULT_RUN,
    BackendOption,
    BundleOption,
    JsonOption,
    PrecisionOption,
)

if TYPE_CHECKING:
    from hvq_edge.bundle import Bundle
    from hvq_edge.runtime.engine import EngineInfo
    from hvq_edge.stream.inspector import Inspector
    from hvq_edge.stream.sinks.recording import Recording
    from hvq_edge.stream.sinks.sink import Draw
    from hvq_edge.stream.sources.source import Source

INTERRUPTED = 130
FOLDER_FRAMES_PER_SECOND = 4.0
"""At which the annotated video of a folder of pictures plays: slow enough to look at each."""


def stream(
    camera: Annotated[
        str,
        typer.Option(
            "--camera",
            help="Camera number (0), csi://0, rtsp://..., a video file or a folder of pictures.",
            show_default=False,
        ),
    ],
    bundle: BundleOption = DEFAULT_RUN / "bundle",
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            help="latest: the newest frame wins, older ones are dropped and counted; all: every "
            "frame is decided. Default: latest for cameras, all for files.",
            show_default=False,
        ),
    ] = None,
    precision: PrecisionOption = "auto",
    backend: BackendOption = "auto",
    category: Annotated[
        str | None,
        typer.Option("--category", help="Judge every frame as this category.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for decisions.jsonl, rejects/ and annotated.mp4. Default: nothing is "
            "written.",
            show_default=False,
        ),
    ] = None,
    video: Annotated[
        bool | None,
        typer.Option(
            "--video/--no-video",
            help="Whether --out gets annotated.mp4. Default: for files, and cameras with "
            "--max-frames.",
            show_default=False,
        ),
    ] = None,
    display: Annotated[
        bool | None,
        typer.Option(
            "--display/--no-display",
            help="Show the frames in a window; q quits. Default: where there is a screen.",
            show_default=False,
        ),
    ] = None,
    max_frames: Annotated[
        int | None,
        typer.Option("--max-frames", min=1, help="Stop after N frames.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Inspect a camera, a video or a folder of pictures: pass, reject or no decision.

    Ctrl-C (exit code 130) and SIGTERM (0) stop after the frames already captured; a second Ctrl-C
    stops at once.
    """
    from hvq_edge.bundle import open_bundle
    from hvq_edge.cli.stream_view import DecisionLines, live_counter, print_summary
    from hvq_edge.stream.frame_queue import known_policy
    from hvq_edge.stream.inspection import open_stream_engine
    from hvq_edge.stream.inspector import Inspector, thresholds_of
    from hvq_edge.stream.overlay import Overlay
    from hvq_edge.stream.sinks.json_lines import JsonLines
    from hvq_edge.stream.sinks.sink import Sink
    from hvq_edge.stream.sinks.window import Window, has_screen
    from hvq_edge.stream.sources.open_source import open_source

    if policy is not None:
        known_policy(policy)  # before seconds of loading
    opened = open_bundle(bundle)
    with ExitStack() as closing:
        engine = open_stream_engine(opened, precision=precision, backend=backend, category=category)
        closing.callback(engine.close)
        source = open_source(camera)
        closing.callback(source.close)
        _announce(source, engine.info)
        _warn_of_missing_thresholds(opened, engine.info)

        draw = Overlay(thresholds_of(opened, engine.info.precision))
        sinks: list[Sink] = []
        inspector = Inspector(
            engine, opened, source, policy=policy, sinks=sinks, max_frames=max_frames
        )
        counter_shown = messages.is_terminal and not as_json
        # Above a live counter, lines must come from the console that draws it.
        lines = messages if counter_shown and results.is_terminal else results
        sinks.append(JsonLines(sys.stdout) if as_json else DecisionLines(lines))
        recording = None
        if out is not None:
            bounded = not source.live or max_frames is not None
            recording = _open_recording(
                out, source, draw, video=bounded if video is None else video
            )
            closing.callback(recording.close)
            sinks.append(recording)
        if has_screen(os.environ) if display is None else display:
            window = Window(draw, quit_asked=inspector.stop)
            closing.callback(window.close)
            sinks.append(window)

        with live_counter(inspector, shown=counter_shown) as clock:
            received = _run(inspector)
        if recording is not None:
            recording.close()
        print_summary(
            messages if as_json else results, inspector, clock(), source.name, out, recording
        )
    if signal.SIGINT in received:
        messages.print("Interrupted.")
        raise typer.Exit(INTERRUPTED)


def _run(inspector: Inspector) -> list[int]:
    """Inspect to the end, or until a signal asks to stop; return the signals received.

    The first Ctrl-C is a request like SIGTERM, which systemd and containers send, so that no
    decision is in one sink and not in the next; after it, Ctrl-C is what it is elsewhere.
    """
    received: list[int] = []
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        inspector.stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in former:
        signal.signal(number, stop)
    try:
        with inspector:
            for _ in inspector:
                pass  # the sinks have it already
    except BrokenPipeError:  # whoever read standard output has gone, as head does: a way to stop
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    return received


def _open_recording(out: Path, source: Source, draw: Draw, *, video: bool) -> Recording:
    from hvq_edge.errors import OutputError
    from hvq_edge.stream.sinks.annotated_video import AnnotatedVideo
    from hvq_edge.stream.sinks.decision_log import DecisionLog
    from hvq_edge.stream.sinks.recording import Recording, check_room
    from hvq_edge.stream.sinks.reject_pictures import RejectPictures
    from hvq_edge.stream.sinks.sink import Sink

    def report(error: OutputError) -> None:
        messages.print(
            f"Warning: recording has stopped, inspection goes on: {error.cause}",
            markup=False,
            soft_wrap=True,
        )

    check_room(out)  # before anything is made there
    sinks: list[Sink] = [
        DecisionLog(out / "decisions.jsonl"),
        RejectPictures(out / "rejects", draw),
    ]
    if video:
        rate = source.frames_per_second or FOLDER_FRAMES_PER_SECOND
        sinks.append(AnnotatedVideo(out / "annotated.mp4", draw, rate))
    return Recording(out, sinks, report)


def _announce(source: Source, info: EngineInfo) -> None:
    messages.print(
        f"Inspecting {source.name} with {info.precision} on {info.backend} ({info.device}).",
        markup=False,
        soft_wrap=True,
    )


def _warn_of_missing_thresholds(bundle: Bundle, info: EngineInfo) -> None:
    from hvq_edge.stream.inspector import thresholds_of

    thresholds = thresholds_of(bundle, info.precision)
    missing = [name for name in info.categories if name not in thresholds]
    if missing:
        messages.print(
            f"Warning: the bundle has no {info.precision} threshold for {', '.join(missing)}: "
            "frames of these lead to no decision.\n"
            "Next:    run hvq-edge export again on a run trained with held-out good pictures",
            markup=False,
            soft_wrap=True,
        )
