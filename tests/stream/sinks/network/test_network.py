"""Receivers on the network: real ones on loopback, which hang, die and come back."""

from __future__ import annotations

import json

from helpers.decisions import made
from helpers.patience import Stopwatch, until
from helpers.receivers import OPTIONS, VERDICTS, Line, frames_of, http  # noqa: F401  # fixtures

from hvq_edge.stream.log.decision_log import DecisionLog, Session
from hvq_edge.stream.log.deliveries import Deliveries
from hvq_edge.stream.sinks.network.delivery import DeliveryFailed
from hvq_edge.stream.sinks.network.webhook import Webhook


def test_a_webhook_gets_rejects_with_ids_and_the_token(tmp_path, http):
    line = Line(tmp_path, Webhook(http.url, "line 1", token="sesame"), batch=3)
    for frame in range(10):
        line.write(range(frame, frame + 1), VERDICTS[frame % 3])
    until(lambda: len(http.taken) == 3)
    line.close()
    assert frames_of(http.taken) == [1, 4, 7]
    first = http.taken[0]
    assert first.items() >= json.loads(made(1, "reject")[0].to_json()).items()
    assert first["id"].startswith(line.log.log_id + ":")
    assert len({event["id"] for event in http.taken}) == 3
    assert {headers["Authorization"] for headers in http.headers} == {"Bearer sesame"}
    assert line.delivery.statistics().written == 3
    assert line.faults == []


def test_a_receiver_that_hangs_slows_nothing_and_loses_nothing(tmp_path, http, caplog):
    http.mode = "hang"
    line = Line(tmp_path, Webhook(http.url, "line 1", token="sesame", timeout_seconds=0.1))
    line.write(range(1))
    until(lambda: bool(line.faults))
    with Stopwatch() as handing_over:
        for frame in range(1, 31):
            line.thread.write(*made(frame, "reject"))
    until(lambda: not line.thread.statistics().waiting)
    assert handing_over.seconds < 2.0, "it waited for the disk at most, never for the receiver"
    counts = line.delivery.statistics()
    assert (counts.written, counts.waiting, counts.dropped) == (0, 31, 0)
    assert counts.fault == "it did not answer in time"
    http.mode = 503
    until(lambda: "503" in line.delivery.statistics().fault)
    http.mode = "take"
    until(lambda: line.delivery.statistics().waiting == 0)
    assert frames_of(http.taken) == list(range(31)), "in order, all of them"
    assert line.delivery.statistics().fault == ""
    line.close()
    assert len(line.faults) == 1, "told once"
    said = caplog.text + repr(line.faults)
    assert "sesame" not in said
    assert "secret" not in said


def test_what_was_not_sent_is_sent_after_the_next_start(tmp_path, http):
    http.mode = "hang"
    line = Line(tmp_path, Webhook(http.url, "line 1", timeout_seconds=0.05))
    line.write(range(5))
    line.close()
    assert line.delivery.statistics().waiting == 5
    http.mode = "take"
    line = Line(tmp_path, Webhook(http.url, "line 1"))
    line.write(range(5, 8))
    until(lambda: len(http.taken) == 8)
    line.close()
    assert frames_of(http.taken) == list(range(8))
    counts = line.delivery.statistics()
    assert (counts.written, counts.waiting, counts.fault) == (8, 0, "")
    assert Deliveries(line.log.path).lowest_cursor() > 8


def test_a_decision_refused_for_good_does_not_hold_up_the_others(tmp_path, http):
    http.mode = 3
    line = Line(tmp_path, Webhook(http.url, "line 1"))
    line.write(range(6))
    until(lambda: line.delivery.statistics().waiting == 0)
    line.close()
    assert sorted(set(frames_of(http.taken))) == [0, 1, 2, 4, 5]
    counts = line.delivery.statistics()
    assert (counts.written, counts.dropped) == (5, 1)
    assert "422" in line.faults[0][1]


def test_a_new_receiver_gets_what_comes_from_now_on(tmp_path, http):
    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), OPTIONS)
    log.write(*made(0, "reject"))
    log.tick()
    log.close()
    line = Line(tmp_path, Webhook(http.url, "line 1"))
    line.write(range(1, 3))
    until(lambda: len(http.taken) == 2)
    line.close()
    assert frames_of(http.taken) == [1, 2]


class Dying:
    """A receiver whose process is killed between taking a batch and saying so."""

    def __init__(self) -> None:
        self.taken: list[dict] = []
        self.dead = False

    def deliver(self, events):
        if self.dead:
            raise DeliveryFailed("it is dead")
        self.taken += events
        self.dead = True
        raise DeliveryFailed("it died before it said yes")

    def close(self):
        pass


def test_twice_is_better_than_never_and_the_id_tells(tmp_path, http):
    dying = Dying()
    line = Line(tmp_path, dying)
    line.write(range(3))
    until(lambda: dying.dead)
    line.close()
    line = Line(tmp_path, Webhook(http.url, "line 1"))
    until(lambda: len(http.taken) == 3)
    line.close()
    assert dying.taken[0]["id"] == http.taken[0]["id"]
