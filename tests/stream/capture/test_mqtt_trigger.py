"""Triggers by MQTT, from a real broker: what comes while it is away is nothing, the rest counts."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("paho.mqtt.client")
from helpers.images import flat, write_png
from helpers.patience import until
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
