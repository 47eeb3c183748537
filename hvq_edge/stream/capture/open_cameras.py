"""Opens cameras as their settings say, with their triggers and preparation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from hvq_edge.common.extras import needed
from hvq_edge.errors import SettingsError
from hvq_edge.stream.capture.part_number import PartReader
from hvq_edge.stream.capture.prepared import Preparation, PreparedSource
from hvq_edge.stream.settings import CameraSettings
from hvq_edge.stream.sinks.sink import Sink
from hvq_edge.stream.sinks.sink_settings import SinkSettings
from hvq_edge.stream.sources.cameras.opencv_capture import CaptureFormat
from hvq_edge.stream.sources.open_source import open_source, triggers_itself
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


def open_cameras(
    settings: Sequence[CameraSettings], receivers: SinkSettings | None = None
) -> Cameras:
    """Open every camera; when one cannot be opened, those before it are closed.

    Args:
        settings: of each camera.
        receivers: of the server whose nodes hold serial numbers, and of the broker whose messages
            trigger; needed where a camera names a node or a topic.

    Raises:
        InputError, SettingsError, OutputError, MissingCapability: see
            :func:`hvq_edge.stream.sources.open_source.open_source` and the triggers.
    """
    sources: list[Source] = []
    sinks: list[Sink] = []
    try:
        for camera in settings:
            names = [source.name for source in sources]
            sources.append(_open(camera, names, sinks, receivers or SinkSettings()))
    except BaseException:
        Cameras(tuple(sources), ()).close()
        raise
    return Cameras(tuple(sources), tuple(sinks))


def _open(
    camera: CameraSettings,
    names: Sequence[str],
    sinks: list[Sink],
    receivers: SinkSettings,
) -> Source:
    parts = PartReader(camera)
    width, height = camera.resolution or (None, None)
    opener = partial(open_source, camera.camera, CaptureFormat(width, height, camera.fps))
    source = opener()
    try:
        if camera.play:
            if source.live or triggers_itself(camera.camera):
                raise SettingsError(
                    f"{source.name} is a camera already: only files are played.",
                    next_step="leave out --play",
                )
            source = PlayedSource(opener, source)
        name = unique_names([*names, camera.name or source.name])[-1]
        trigger = _open_trigger(camera, name, sinks, receivers)
    except BaseException:
        source.close()
        raise
    if trigger is not None:
        frames, delay = camera.trigger_frames, camera.trigger_delay
        source = TriggeredSource(source, trigger, frames=frames, delay=delay)
    preparation = Preparation(camera.every, camera.rotate, camera.roi, camera.roi_polygon)
    return PreparedSource(source, preparation, name, parts)


def _open_trigger(
    camera: CameraSettings, name: str, sinks: list[Sink], receivers: SinkSettings
) -> Trigger | None:
    trigger: Trigger
    if camera.trigger_file is not None:
        trigger = FileTrigger(camera.trigger_file)
    elif camera.trigger_port is not None:
        from hvq_edge.stream.sources.http_trigger import HttpTrigger

        trigger = HttpTrigger(camera.trigger_port, name, frames=camera.trigger_frames)
        sinks.append(trigger)
    elif camera.trigger_topic is not None and receivers.mqtt is not None:
        with needed("trigger_topic"):
            from hvq_edge.stream.capture.mqtt_trigger import MqttTrigger
        trigger = MqttTrigger(receivers.mqtt, camera.trigger_topic)
    else:
        return None
    opcua = receivers.opcua
    if camera.part_opcua_node is None or opcua is None:
        return trigger
    with ExitStack() as failing:
        failing.callback(trigger.close)
        with needed("part_opcua_node"):
            from hvq_edge.stream.capture.part_node import PartNode
        numbered = PartNode(trigger, opcua, camera.part_opcua_node)
        failing.pop_all()
    return numbered
