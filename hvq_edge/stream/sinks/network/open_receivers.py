"""Opens each receiver from its settings; the packages load here, on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvq_edge.stream.sinks.plant.level_output import LevelOutput
from hvq_edge.stream.sinks.plant.reject_signal import RejectSignal
from hvq_edge.stream.sinks.sink_settings import (
    GpioSettings,
    ModbusSettings,
    MqttSettings,
    OpcUaSettings,
    WebhookSettings,
    read_secret,
)

if TYPE_CHECKING:
    from hvq_edge.stream.sinks.network.delivery import Receiver

MQTT_BATCH = 100
"""Messages under way to the broker at once."""


def open_webhook(settings: WebhookSettings) -> Receiver:
    """Open the webhook.

    Raises:
        SettingsError: the token or the certificate file is not there.
    """
    from hvq_edge.stream.sinks.network.webhook import Webhook

    return Webhook(
        settings.url,
        settings.source,
        token=read_secret(
            "sinks.webhook.token", settings.token_file, settings.token_env, for_header=True
        ),
        ca_file=settings.ca_file,
        timeout_seconds=settings.timeout_seconds,
    )


def open_mqtt(settings: MqttSettings, cameras: Sequence[str]) -> Receiver:
    """Prepare the connection to the broker.

    Args:
        settings: of the broker.
        cameras: names that decisions will bear.

    Raises:
        SettingsError: the password is not there.
    """
    from hvq_edge.stream.sinks.network.mqtt import Mqtt

    return Mqtt(
        settings.host,
        settings.port,
        settings.line,
        prefix=settings.prefix,
        username=settings.username,
        password=read_secret("sinks.mqtt.password_file", settings.password_file),
        tls=settings.tls,
        ca_file=settings.ca_file,
        discovery=settings.discovery_prefix if settings.discovery else None,
        cameras=cameras,
        timeout_seconds=settings.timeout_seconds,
    )


def open_modbus(settings: ModbusSettings) -> LevelOutput:
    """Prepare the connection to the controller."""
    from hvq_edge.stream.sinks.plant.modbus import ModbusController

    controller = ModbusController(
        settings.host,
        settings.port,
        unit=settings.unit,
        reject_coil=settings.reject_coil,
        heartbeat_coil=settings.heartbeat_coil,
        timeout_seconds=settings.timeout_seconds,
    )
    signal = _signal(settings.hold_ms, settings.no_decision_rejects)
    beats = settings.heartbeat_coil is not None
    return LevelOutput(controller, signal, settings.heartbeat_seconds if beats else None)


def open_opcua(settings: OpcUaSettings) -> LevelOutput:
    """Prepare the connection to the server.

    Raises:
        SettingsError: the password is not there.
    """
    from hvq_edge.stream.sinks.plant.opcua import OpcUaController, OpcUaServer

    controller = OpcUaController(
        OpcUaServer.of(settings),
        reject_node=settings.reject_node,
        verdict_node=settings.verdict_node,
        score_node=settings.score_node,
        image_node=settings.image_node,
        part_node=settings.part_node,
        heartbeat_node=settings.heartbeat_node,
    )
    signal = _signal(settings.hold_ms, settings.no_decision_rejects)
    beats = settings.heartbeat_node is not None
    return LevelOutput(controller, signal, settings.heartbeat_seconds if beats else None)


def open_gpio(settings: GpioSettings) -> LevelOutput:
    """Take the line.

    Raises:
        MissingCapability: there is none, or it is in use.
    """
    from hvq_edge.stream.sinks.plant.gpio import GpioController

    controller = GpioController(settings.chip, settings.line, active_low=settings.active_low)
    return LevelOutput(controller, _signal(settings.pulse_ms, settings.no_decision_rejects))


def _signal(hold_ms: float | None, no_decision_rejects: bool) -> RejectSignal:
    hold_seconds = None if hold_ms is None else hold_ms / 1000.0
    return RejectSignal(hold_seconds, no_decision_rejects=no_decision_rejects)
