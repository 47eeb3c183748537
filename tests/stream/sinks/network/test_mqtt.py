"""The MQTT sink against a real broker that restarts."""

from __future__ import annotations

import json
import socket

import pytest
from helpers.patience import until
from helpers.receivers import MOSQUITTO, VERDICTS, Broker, Line, Listener, frames_of, names_of

from hvq_edge.stream.sinks.network import delivery
from hvq_edge.stream.sinks.network.mqtt import Mqtt, topic_part


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
    line = Line(tmp_path, receiver, verdicts=VERDICTS)
    for frame in range(6):
        line.write(range(frame, frame + 1), VERDICTS[frame % 3])
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
    assert names_of(listener.decisions()) == {(f"film.mp4#{i}", f"SN-{i}") for i in range(12)}
    assert len(line.faults) == 1


def retained(broker: Broker) -> dict[str, str]:
    """What somebody sees who subscribes now."""
    late = Listener(broker.port)
    until(lambda: late.got, "anything is retained")
    found = {topic: text for topic, text, kept in late.got if kept}
    late.close()
    return found


def test_mqtt_is_there_before_the_first_decision_and_after_each_return_of_the_broker(
    tmp_path, broker, monkeypatch
):
    monkeypatch.setattr(delivery, "_IDLE_SECONDS", 0.02)
    cameras = ["left", "right"]
    receiver = Mqtt(
        "127.0.0.1", broker.port, "line 1", discovery="ha", cameras=cameras, timeout_seconds=5.0
    )
    line = Line(tmp_path, receiver, verdicts=("reject",))
    topics = {f"ha/sensor/hvq-edge_line_1_{camera}/config" for camera in cameras}
    until(lambda: receiver._client is not None and not line.delivery.statistics().fault)
    until(lambda: {*retained(broker)} == {*topics, "hvq-edge/line_1/availability"})
    assert retained(broker)["hvq-edge/line_1/availability"] == "online"
    assert line.delivery.statistics().written == 0, "no decision was made yet"

    broker.stop()
    broker.forget()
    until(lambda: "broker" in line.delivery.statistics().fault, "seen without a decision")
    broker.start()
    until(lambda: not line.delivery.statistics().fault)
    until(lambda: {*retained(broker)} == {*topics, "hvq-edge/line_1/availability"})
    assert retained(broker)["hvq-edge/line_1/availability"] == "online"
    line.close()
    assert retained(broker)["hvq-edge/line_1/availability"] == "offline"


def test_the_broker_says_offline_when_the_inspector_dies_and_never_of_its_next_connection(broker):
    listener = Listener(broker.port)
    receiver = Mqtt("127.0.0.1", broker.port, "line 1")
    receiver.keep_up()
    until(lambda: listener.availability() == ["online"])
    receiver._client.socket().shutdown(socket.SHUT_RDWR)  # as when its process is killed
    until(lambda: listener.availability() == ["online", "offline"], "the last will")
    until(lambda: receiver._client is None)
    receiver.keep_up()
    until(lambda: listener.availability() == ["online", "offline", "online"])
    # A connection that is dead without the broker's knowledge ends before the next one says online.
    former = receiver._client
    receiver._client = None
    receiver.keep_up()
    until(lambda: len(listener.availability()) == 5)
    assert listener.availability()[3:] == ["offline", "online"]
    receiver.close()
    former.loop_stop()
    listener.close()


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
