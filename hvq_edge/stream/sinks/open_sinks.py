"""Opens and starts the sinks that the settings ask for.

::

    inspector ──▶ log ──▶ decisions.sqlite ──▶ webhook, mqtt     (all that is committed)
              ├─▶ rejects, images, video, jsonl                  (files)
              └─▶ modbus, opcua, gpio                            (the newest decision only)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hvq_edge.common.extras import needed
from hvq_edge.errors import SettingsError
from hvq_edge.stream.controls import Controls
from hvq_edge.stream.drift.category import Alarm
from hvq_edge.stream.log.chain import LogRow
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.deliveries import remove_old_log_files
from hvq_edge.stream.log.events import EventWatch
from hvq_edge.stream.log.reader import decision_times
from hvq_edge.stream.review.choice import Choice
from hvq_edge.stream.sinks.all_sinks import OpenSinks
from hvq_edge.stream.sinks.faults import Report
from hvq_edge.stream.sinks.files.json_lines import JsonLinesFile
from hvq_edge.stream.sinks.files.reject_images import RejectImages
from hvq_edge.stream.sinks.files.retention import (
    REJECT_FILES,
    VIDEO_FILES,
    Housekeeping,
    Retention,
    RetentionLimits,
    SteadyClock,
    check_room,
)
from hvq_edge.stream.sinks.files.review_images import ReviewImages
from hvq_edge.stream.sinks.files.video import AnnotatedVideo, ByCamera, VideoSegments
from hvq_edge.stream.sinks.sink import Draw, Sink
from hvq_edge.stream.sinks.sink_settings import DAY_SECONDS, MEGABYTE, SinkSettings
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.stream.sources.cameras.frame_counter import Transport
from hvq_edge.verdict.decision import Decision

if TYPE_CHECKING:
    from hvq_edge.stream.sinks.network.delivery import Receiver

IMAGES_WAITING = 32
"""Decisions with images that may wait for one sink: 6 MB each at 1920x1080."""
IMAGES_WAITING_FOR_FILES = 4
"""Where the source waits: few, because a stop has to drain them within its time."""
DECISIONS_WAITING = 2048
"""Decisions without images that may wait for one sink."""


@dataclass(frozen=True)
class SourceInfo:
    """What sinks know of a source."""

    name: str
    """The name that its decisions bear as ``camera``; it holds no credentials."""
    frames_per_second: float
    """Rate at which its annotated video plays."""


def open_sinks(
    settings: SinkSettings,
    out: Path | None,
    sources: Sequence[SourceInfo],
    draw: Draw,
    *,
    when_full: Literal["wait", "drop"],
    video: bool = False,
    session: Mapping[str, Any] | None = None,
    controls: Controls | None = None,
    unlike: Callable[[str], str] = lambda _: "",
    drift: Callable[[str], Sequence[Alarm]] = lambda _: (),
    transport: Callable[[str], Transport] = lambda _: Transport(),
    report: Report | None = None,
) -> OpenSinks:
    """Open every sink that settings and ``out`` ask for.

    Args:
        settings: of all sinks.
        out: folder for what is recorded; ``None``: nothing is.
        sources: at least one.
        draw: draws overlays; each sink gets a copy, because it may keep its last drawing and
            every sink has its own thread.
        when_full: ``wait`` for files, all of which must be recorded; ``drop`` for cameras.
        video: whether ``out`` gets annotated video.
        session: what the log says of this run: version, bundle's hash, thresholds; JSON values.
        controls: whose changes of thresholds, and pauses, go into the log.
        unlike: says of a camera in what its images are unlike the training images, for the log.
        drift: says of a camera what has drifted, likewise.
        transport: says of a camera what went wrong on the way so far, likewise.
        report: told once of each fault, on the sinks' threads; default: they are logged.

    Raises:
        SettingsError: a receiver that reads from the log, and no ``out``; a secret is not there.
        MissingCapability: a package or a device is not there.
        OutputError: something cannot be written.
    """
    opened = OpenSinks()
    opened.watch = EventWatch(controls, unlike, drift, transport)
    with ExitStack() as failing:
        failing.callback(opened.close)
        if out is not None:
            images = settings.images
            choice = None if images is None else Choice(images.sample, images.near)
            told = {**(session or {}), **({} if choice is None else {"images": choice.details()})}
            _open_log(opened, settings, out, when_full, told, report)
            _open_recordings(
                opened, settings, out, sources, draw, when_full, video, report, choice, controls
            )
        _open_deliveries(opened, settings, sources, report)
        _open_outputs(opened, settings, report)
        failing.pop_all()
    return opened


def _open_log(
    opened: OpenSinks,
    settings: SinkSettings,
    out: Path,
    when_full: Literal["wait", "drop"],
    session: Mapping[str, Any],
    report: Report | None,
) -> None:
    check_room(out)  # before anything is made there
    chosen = settings.log
    options = LogOptions(
        commit_seconds=chosen.commit_ms / 1000.0,
        file_bytes=_times(chosen.file_megabytes, MEGABYTE),
        file_seconds=_seconds(chosen.file_days),
        head=None if chosen.head is None else Path(chosen.head),
        head_seconds=chosen.head_seconds,
        waits=when_full == "wait",
    )
    log = opened.log = DecisionLog(out / "decisions.sqlite", Session(session), options)
    limits = _limits(chosen.keep_megabytes, chosen.keep_days)
    clock = SteadyClock()
    receivers = _receivers(settings)
    log.on_new_file = lambda: remove_old_log_files(log.path, limits, receivers, clock())
    thread = SinkThread(log, "log", when_full, DECISIONS_WAITING, report=report, images=False)
    opened.log_thread = thread
    opened.threads.append(thread)


def _open_recordings(
    opened: OpenSinks,
    settings: SinkSettings,
    out: Path,
    sources: Sequence[SourceInfo],
    draw: Draw,
    when_full: Literal["wait", "drop"],
    video: bool,
    report: Report | None,
    choice: Choice | None,
    controls: Controls | None,
) -> None:
    def add(
        sink: Sink,
        name: str,
        *,
        images: bool = True,
        ends_at_fault: bool = False,
        wanted: Callable[[Decision], bool] | None = None,
    ) -> None:
        with_images = IMAGES_WAITING if when_full == "drop" else IMAGES_WAITING_FOR_FILES
        capacity = with_images if images else DECISIONS_WAITING
        thread = SinkThread(
            sink,
            name,
            when_full,
            capacity,
            report=report,
            check=lambda: check_room(out),
            ends_at_fault=ends_at_fault,
            wanted=wanted,
            images=images,
        )
        opened.threads.append(thread)

    json_lines = settings.log.json_lines
    if when_full == "wait" if json_lines is None else json_lines:
        add(JsonLinesFile(out / "decisions.jsonl"), "jsonl", images=False)
    several = len(sources) > 1
    rejects = RejectImages(
        out / "rejects", copy(draw), settings.rejects.context_frames, name_cameras=several
    )
    limits = _limits(settings.rejects.keep_megabytes, settings.rejects.keep_days)
    recorded = partial(decision_times, out / "decisions.sqlite")
    kept = _kept(
        rejects,
        out / "rejects",
        Retention(out / "rejects", REJECT_FILES, limits, recorded=recorded),
    )
    # Without frames around them, only rejects concern it: passes must not crowd one out.
    with_context = settings.rejects.context_frames > 0
    add(kept, "rejects", wanted=None if with_context else lambda d: d.verdict == "reject")
    if settings.images is not None and choice is not None:
        judged = ReviewImages(
            out / "images",
            choice,
            lambda: controls.thresholds if controls is not None else {},
            settings.images.no_decision_seconds,
            name_cameras=several,
        )
        limits = _limits(settings.images.keep_megabytes, settings.images.keep_days)
        retention = Retention(out / "images", REJECT_FILES, limits, recorded=recorded)
        add(_kept(judged, out / "images", retention), "images", wanted=judged.wants)
    if not video:
        return
    if settings.video.segment_minutes is None:
        add(_whole_videos(out, sources, copy(draw)), "video", ends_at_fault=True)
        return
    folder = out / "videos"
    limits = _limits(settings.video.keep_megabytes, settings.video.keep_days)
    in_hand: set[Path] = set()
    seconds = settings.video.segment_minutes * 60.0
    pieces = _video_pieces(folder, sources, copy(draw), seconds, in_hand)
    retention = Retention(folder, VIDEO_FILES, limits, recorded=recorded, in_hand=in_hand)
    add(_kept(pieces, folder, retention), "video")


def _whole_videos(out: Path, sources: Sequence[SourceInfo], draw: Draw) -> Sink:
    if len(sources) == 1:
        return AnnotatedVideo(_free(out / "annotated.mp4"), draw, sources[0].frames_per_second)
    rates = {source.name: source.frames_per_second for source in sources}
    names = _file_names(sources)
    return ByCamera(
        lambda camera: AnnotatedVideo(
            _free(out / f"annotated-{names[camera]}.mp4"), draw, rates[camera]
        )
    )


def _free(path: Path) -> Path:
    """Return a path that is not there yet: an earlier run's video is kept, as its log is."""
    if not path.exists():
        return path
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in count(2))
    return next(other for other in numbered if not other.exists())


def _video_pieces(
    folder: Path, sources: Sequence[SourceInfo], draw: Draw, seconds: float, in_hand: set[Path]
) -> Sink:
    if len(sources) == 1:
        rate = sources[0].frames_per_second
        return VideoSegments(folder, draw, rate, seconds, in_hand=in_hand)
    rates = {source.name: source.frames_per_second for source in sources}
    names = _file_names(sources)
    return ByCamera(
        lambda camera: VideoSegments(
            folder, draw, rates[camera], seconds, f"-{names[camera]}", in_hand
        )
    )


def _open_deliveries(
    opened: OpenSinks,
    settings: SinkSettings,
    sources: Sequence[SourceInfo],
    report: Report | None,
) -> None:
    wanted = _receivers(settings)
    if not wanted:
        return
    log = opened.log
    if log is None:
        raise SettingsError(
            f"[sinks.{wanted[0]}] sends what is in the decision log, and there is none.",
            next_step="name a folder for it with --out",
        )
    with needed(f"[sinks.{wanted[0]}]"):
        from hvq_edge.stream.sinks.network.delivery import Delivery
    from hvq_edge.stream.sinks.network import open_receivers

    def add(name: str, receiver: Receiver, verdicts: Sequence[str], batch: int) -> None:
        delivery = Delivery(
            log.path, log.log_id, name, receiver, verdicts=verdicts, batch=batch, report=report
        )
        opened.deliveries.append(delivery)

    if settings.webhook is not None:
        with needed("[sinks.webhook]"):
            receiver = open_receivers.open_webhook(settings.webhook)
        add("webhook", receiver, settings.webhook.verdicts, settings.webhook.batch)
    if settings.mqtt is not None:
        with needed("[sinks.mqtt]"):
            broker = open_receivers.open_mqtt(settings.mqtt, [source.name for source in sources])
        add("mqtt", broker, settings.mqtt.verdicts, open_receivers.MQTT_BATCH)
    deliveries = tuple(opened.deliveries)

    def committed(rows: Sequence[LogRow]) -> None:
        for delivery in deliveries:
            delivery.committed(rows)

    log.on_commit = committed
    for delivery in deliveries:
        delivery.start()


def _receivers(settings: SinkSettings) -> list[str]:
    """Name the receivers that read from the log."""
    return [name for name in ("webhook", "mqtt") if getattr(settings, name) is not None]


def _open_outputs(opened: OpenSinks, settings: SinkSettings, report: Report | None) -> None:
    from hvq_edge.stream.sinks.network import open_receivers

    openers: dict[str, Callable[[], Sink]] = {}
    if settings.modbus is not None:
        modbus = settings.modbus
        openers["modbus"] = lambda: open_receivers.open_modbus(modbus)
    if settings.opcua is not None:
        opcua = settings.opcua
        openers["opcua"] = lambda: open_receivers.open_opcua(opcua)
    if settings.gpio is not None:
        gpio = settings.gpio
        openers["gpio"] = lambda: open_receivers.open_gpio(gpio)
    for name, opener in openers.items():
        with needed(f"[sinks.{name}]"):
            sink = opener()
        thread = SinkThread(sink, name, "newest", 1, report=report, images=False)
        opened.threads.append(thread)


def _kept(sink: Sink, folder: Path, retention: Retention) -> Sink:
    return Housekeeping(sink, folder, retention.apply)


def _file_names(sources: Sequence[SourceInfo]) -> dict[str, str]:
    """Return a part of a file name for each source; numbered, so that no two share one."""
    return {
        source.name: f"{number}-" + re.sub(r"[^\w.-]+", "_", source.name).strip("_")[:60]
        for number, source in enumerate(sources)
    }


def _limits(megabytes: float | None, days: float | None) -> RetentionLimits:
    return RetentionLimits(_times(megabytes, MEGABYTE), _seconds(days))


def _times(value: float | None, unit: int) -> int | None:
    return None if value is None else round(value * unit)


def _seconds(days: float | None) -> float | None:
    return None if days is None else days * DAY_SECONDS
