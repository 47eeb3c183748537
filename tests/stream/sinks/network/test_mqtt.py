"""The MQTT sink against a real broker that restarts."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import uuid

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from hvq_edge.stream.sinks.network.mqtt import Mqtt, topic_part
from tests.stream.sinks.network.test_network import ALL, Line, frames_of, until

MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Broker:
    """mosquitto, which may be stopped and started again.

    It remembers who has a session there: what is published before such a subscriber is back is
    kept for it.
    """

    def __init__(self, folder) -> None:
        self.port = free_port()
        self._settings = folder / "mosquitto.conf"
        self._settings.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\n"
            f"persistence true\npersistence_location {folder}/\n"
            + ("user root\n" if os.geteuid() == 0 else "")
        )
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", self._settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers)

    def stop(self) -> None:
        self._process.terminate()  # kill -9 would lose the sessions, which are the test's, not ours
        self._process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listener:
    """A subscriber to everything, with a session of its own at the broker."""

    def __init__(self, port: int) -> None:
        self.got: list[tuple[str, str, bool]] = []
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=uuid.uuid4().hex, clean_session=False
        )
        self.client.reconnect_delay_set(1, 1)
        subscribed = threading.Event()
        self.client.on_connect = lambda *_: self.client.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = lambda _client, _data, message: self.got.append(
            (message.topic, message.payload.decode(), message.retain)
        )
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        assert subscribed.wait(10)

    def decisions(self) -> list[dict]:
        return [json.loads(text) for topic, text, _ in self.got if topic.endswith("/decision")]

    def availability(self) -> list[str]:
        return [text for topic, text, _ in self.got if topic == "hvq-edge/line_1/availability"]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def broker(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    started = Broker(tmp_path)
    yield started
    started.stop()


def test_mqtt_delivers_over_a_restart_of_the_broker(tmp_path, broker):
    listener = Listener(broker.port)
    receiver = Mqtt("127.0.0.1", broker.port, "line 1", timeout_seconds=1.0)
    line = Line(tmp_path, receiver, verdicts=ALL)
    for frame in range(6):
        line.write(range(frame, frame + 1), ALL[frame % 3])
    until(lambda: len(listener.decisions()) == 6)
    assert listener.availability()[-1] == "online"
    broker.stop()
    line.write(range(6, 12))
    until(lambda: "broker" in line.delivery.statistics().fault)
    assert line.delivery.statistics().waiting == 6
    broker.start()
    until(lambda: line.delivery.statistics().waiting == 0)
    until(lambda: {*frames_of(listener.decisions())} == {*range(12)})
    assert {topic for topic, _, _ in listener.got if topic.endswith("decision")} == {
        "hvq-edge/line_1/camera/decision"
    }
    line.close()
    until(lambda: listener.availability()[-1] == "offline")
    listener.close()
    assert len({event["id"] for event in listener.decisions()}) == 12
    assert len(line.faults) == 1


def test_mqtt_announces_cameras_only_where_asked(broker):
    listener = Listener(broker.port)
    for discovery in None, "homeassistant":
        receiver = Mqtt("127.0.0.1", broker.port, "line 1", discovery=discovery)
        receiver.deliver([{"id": "a:1", "camera": "left/top +", "verdict": "pass"}])
        receiver.deliver([{"id": "a:2", "camera": "left/top +", "verdict": "pass"}])
        receiver.close()
    until(lambda: len(listener.got) == 9)
    listener.close()
    ((topic, text, _),) = [each for each in listener.got if "homeassistant" in each[0]]
    config = json.loads(text)
    assert topic == f"homeassistant/sensor/{config['unique_id']}/config"
    assert config["state_topic"] == "hvq-edge/line_1/left_top/decision"
    assert config["state_topic"] in {topic for topic, _, _ in listener.got}


@pytest.mark.parametrize(("name", "part"), [("a b", "a_b"), ("#", "_"), ("ü/+", "ü"), ("", "_")])
def test_a_topic_part_is_one_level(name, part):
    assert topic_part(name) == part
