"""Opens cameras as their settings say, with their triggers and preparation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hvq_edge.errors import SettingsError
from hvq_edge.stream.capture.prepared import Preparation, PreparedSource
from hvq_edge.stream.settings import CameraSettings
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sources.http_trigger import HttpTrigger
from hvq_edge.stream.sources.open_source import open_source
from hvq_edge.stream.sources.opencv_capture import CaptureFormat
from hvq_edge.stream.sources.played import PlayedSource
from hvq_edge.stream.sources.source import Source, unique_names
from hvq_edge.stream.sources.trigger import FileTrigger, Trigger, TriggeredSource


@dataclass(frozen=True)
class Cameras:
    """Open cameras."""

    sources: tuple[Source, ...]
    """Each has a name of its own."""
    sinks: tuple[Sink, ...]
    """Must see every decision: they answer those who triggered."""

    def close(self) -> None:
        """Close all; calling it twice is fine."""
        for source in self.sources:
            source.close()


def open_cameras(settings: Sequence[CameraSettings]) -> Cameras:
    """Open every camera; when one cannot be opened, those before it are closed.

    Raises:
        InputError, SettingsError, OutputError, MissingCapability: see
            :func:`hvq_edge.stream.sources.open_source.open_source` and the triggers.
    """
    sources: list[Source] = []
    sinks: list[Sink] = []
    try:
        for camera in settings:
            sources.append(_open(camera, [source.name for source in sources], sinks))
    except BaseException:
        Cameras(tuple(sources), ()).close()
        raise
    return Cameras(tuple(sources), tuple(sinks))


def _open(camera: CameraSettings, names: Sequence[str], sinks: list[Sink]) -> Source:
    width, height = camera.resolution or (None, None)
    opener = partial(open_source, camera.camera, CaptureFormat(width, height, camera.fps))
    source = opener()
    try:
        if camera.play:
            if source.live:
                raise SettingsError(
                    f"{source.name} is a camera already: only files are played.",
                    next_step="leave out --play",
                )
            source = PlayedSource(opener, source)
        name = unique_names([*names, camera.name or source.name])[-1]
        trigger = _open_trigger(camera, name)
    except BaseException:
        source.close()
        raise
    if isinstance(trigger, HttpTrigger):
        sinks.append(trigger)
    if trigger is not None:
        frames, delay = camera.trigger_frames, camera.trigger_delay
        source = TriggeredSource(source, trigger, frames=frames, delay=delay)
    preparation = Preparation(camera.every, camera.rotate, camera.roi, camera.roi_polygon)
    return PreparedSource(source, preparation, name)


def _open_trigger(camera: CameraSettings, name: str) -> Trigger | None:
    if camera.trigger_file is not None:
        return FileTrigger(camera.trigger_file)
    if camera.trigger_port is not None:
        return HttpTrigger(camera.trigger_port, name, frames=camera.trigger_frames)
    return None
