"""Triggers by MQTT, from a real broker: what comes while it is away is nothing, the rest counts."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

pytest.importorskip("paho.mqtt.client")
from helpers.images import flat, write_png
from helpers.patience import PATIENCE_SECONDS, until
from helpers.receivers import MOSQUITTO, Broker
from paho.mqtt.publish import single

from hvq_edge.stream.capture.mqtt_trigger import MqttTrigger
from hvq_edge.stream.capture.open_cameras import open_cameras
from hvq_edge.stream.settings import CameraSettings
from hvq_edge.stream.sinks.sink_settings import MqttSettings, SinkSettings

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="there is no mosquitto")
TOPIC = "line/part"


@pytest.fixture
def broker(tmp_path):
    running = Broker(tmp_path)
    yield running
    running.stop()


def settings(broker: Broker) -> MqttSettings:
    return MqttSettings(host="127.0.0.1", port=broker.port)


def say(broker: Broker, payload: bytes | str, *, retain: bool = False) -> None:
    single(TOPIC, payload, qos=1, retain=retain, hostname="127.0.0.1", port=broker.port)


def heard(trigger: MqttTrigger, broker: Broker) -> None:
    """Wait until the subscription stands: what is said before is not for it."""

    def came() -> bool:
        say(broker, "probe")
        return trigger.wait(0.2)

    until(came)
    say(broker, "the last probe")
    until(lambda: trigger.wait(0.5) and trigger.part() == "the last probe")


@pytest.fixture
def trigger(broker):
    opened = MqttTrigger(settings(broker), TOPIC)
    heard(opened, broker)
    yield opened
    opened.close()
    opened.close()


@pytest.mark.parametrize(
    ("payload", "part"),
    [
        ("SN-0042", "SN-0042"),
        (" 17 ", "17"),
        ("", ""),
        (json.dumps({"part": "SN-7", "lot": 3}), "SN-7"),
        (json.dumps({"part": 7}), "7"),
        ("{}", ""),
        ('{"part": ', ""),
        (json.dumps({"part": ["a"]}), ""),
        ("[" * 5000, ""),
        ("x" * 201, ""),
        (b"\xff\xfe", r"\xff\xfe"),
    ],
)
def test_a_message_triggers_whatever_it_says_of_the_part(trigger, broker, payload, part):
    say(broker, payload)
    until(lambda: trigger.wait(0.5))
    assert trigger.part() == part


def test_a_message_that_the_broker_kept_from_before_is_no_trigger(broker):
    say(broker, "the part of yesterday", retain=True)
    opened = MqttTrigger(settings(broker), TOPIC)
    try:
        say(broker, "of today")
        until(lambda: [say(broker, "of today"), opened.wait(0.3)][1])
        assert opened.part() == "of today"
    finally:
        opened.close()


def test_a_message_says_when_it_came_not_when_it_was_taken(trigger, broker):
    before = time.monotonic()
    say(broker, "SN-1")
    until(lambda: not trigger._waiting.empty())
    after = time.monotonic()
    came = trigger.wait(PATIENCE_SECONDS)
    assert came is not None
    assert before <= came <= after


def test_it_listens_again_when_the_broker_is_back(broker, trigger, caplog):
    broker.stop()
    until(lambda: "no triggers come" in caplog.text)
    assert not trigger.wait(0.1)
    broker.start()
    heard(trigger, broker)
    assert caplog.text.count("no triggers come") == 1
    say(broker, "SN-1")
    until(lambda: trigger.wait(0.5))
    assert trigger.part() == "SN-1"


def test_a_camera_takes_a_frame_for_each_message(broker, tmp_path):
    for number in range(2):
        write_png(tmp_path / "in" / f"{number}.png", flat(40 * number + 40))
    camera = CameraSettings(camera=str(tmp_path / "in"), trigger_topic=TOPIC, trigger_frames=2)
    cameras = open_cameras([camera], SinkSettings(mqtt=settings(broker)))
    (source,) = cameras.sources
    frames = iter(source)
    # The subscription is made in the background: its first message is said until it is heard.
    trigger = source._source._trigger
    heard(trigger, broker)
    say(broker, "SN-0042")
    found = [next(frames), next(frames)]
    cameras.close()
    assert [(frame.name, frame.part) for frame in found] == [
        ("0.png", "SN-0042"),
        ("1.png", "SN-0042"),
    ]


def test_a_broker_that_is_not_there_is_told_and_no_trigger(caplog):
    opened = MqttTrigger(MqttSettings(host="127.0.0.1", port=1, timeout_seconds=1.0), TOPIC)
    try:
        until(lambda: "cannot be reached" in caplog.text)
        assert not opened.wait(0.0001)
    finally:
        opened.close()


def test_a_refused_subscription_is_told_until_one_is_granted(caplog):
    """A broker of two connections: the first may not subscribe, the second may."""
    may_end = threading.Event()

    def packet(connection: socket.socket) -> tuple[int, bytes]:
        kind, length = connection.recv(2)  # so short that the length is one byte
        return kind >> 4, connection.recv(length, socket.MSG_WAITALL)

    def serve() -> None:
        for granted in (b"\x80", b"\x01"):
            connection, _ = server.accept()
            with connection:
                assert packet(connection)[0] == 1
                connection.sendall(b"\x20\x02\x00\x00")
                kind, body = packet(connection)
                assert kind == 8
                connection.sendall(b"\x90\x03" + body[:2] + granted)
                may_end.wait(PATIENCE_SECONDS)
                may_end.clear()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        opened = MqttTrigger(MqttSettings(host="127.0.0.1", port=port), TOPIC)
        try:
            until(lambda: caplog.messages)
            refused = f"the broker refuses the subscription to {TOPIC}: "
            assert refused in caplog.messages[0]
            may_end.set()
            until(lambda: len(caplog.messages) == 2)
            assert "the connection ended" in caplog.messages[1]
            until(lambda: not opened._told)
        finally:
            opened.close()
            may_end.set()
            thread.join(PATIENCE_SECONDS)
    assert len(caplog.messages) == 2
