"""Receivers on the network: real ones on loopback, which hang, die and come back."""

from __future__ import annotations

import errno
import json
import shutil
import socket
import sqlite3
import threading
import time
from contextlib import closing, suppress

import pytest
from helpers.decisions import made
from helpers.patience import Stopwatch, until
from helpers.receivers import (  # noqa: F401  # fixtures
    OPTIONS,
    VERDICTS,
    Line,
    frames_of,
    http,
    named,
    names_of,
)

from hvq_edge.stream.log import reader
from hvq_edge.stream.log.decision_log import DecisionLog, Session
from hvq_edge.stream.log.deliveries import Deliveries
from hvq_edge.stream.sinks.network import delivery
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
    assert first.items() >= json.loads(named(1, "reject")[0].to_json()).items()
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
    assert names_of(http.taken) == {(f"film.mp4#{i}", f"SN-{i}") for i in range(8)}
    counts = line.delivery.statistics()
    assert (counts.written, counts.waiting, counts.fault) == (8, 0, "")
    assert Deliveries(line.log.path).lowest_cursor(["webhook"]) > 8


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


# Nothing ends the thread, and nothing makes it spin.


class Taking:
    """A receiver that takes all."""

    def __init__(self) -> None:
        self.taken: list[dict] = []

    def deliver(self, events):
        self.taken += events

    def close(self):
        pass


def test_a_machine_without_descriptors_stops_deliveries_only_as_long_as_that_lasts(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(delivery, "_IDLE_SECONDS", 0.02)
    real, none_left = reader.chain_files, [True]

    def files(log):
        if none_left and threading.current_thread().name == "sink webhook":
            raise OSError(errno.EMFILE, "Too many open files")
        return real(log)

    monkeypatch.setattr(reader, "chain_files", files)
    line = Line(tmp_path, Taking())  # its thread must not have opened a file before
    line.write(range(3))
    until(lambda: "Too many open files" in line.delivery.statistics().fault)
    until(lambda: line.delivery.statistics().waiting == 3)
    none_left.clear()
    until(lambda: line.delivery.statistics().written == 3)
    until(lambda: not line.delivery.statistics().fault)
    line.close()
    assert len(line.faults) == 1


UNREADABLE = {
    "no JSON": "more = '{'",
    "no object": "more = '[1]'",
    "nested without end": "more = '" + '{"a":' * 20_000 + "1" + "}" * 20_000 + "'",
    "an infinite number": "score = 9e999",
    "half a character": """more = '{"a":"\\ud800"}'""",
    "bytes that are no text": "more = CAST(x'7b22ff227d' AS TEXT)",
    "regions that are no JSON": "regions = '['",
}


@pytest.mark.parametrize("change", UNREADABLE.values(), ids=UNREADABLE)
def test_a_row_that_cannot_be_read_is_counted_with_its_id(tmp_path, change):
    dying, receiver = Dying(), Taking()
    line = Line(tmp_path, dying)
    line.write(range(4))
    until(lambda: dying.dead)
    line.close()
    with closing(sqlite3.connect(line.log.path, isolation_level=None)) as connection:
        (row,) = connection.execute("SELECT id FROM log WHERE frame = 2").fetchone()
        connection.execute(f"UPDATE log SET {change} WHERE id = ?", (row,))
    line = Line(tmp_path, receiver)
    line.write(range(4, 6))
    until(lambda: line.delivery.statistics().waiting == 0)
    line.close()
    assert frames_of(receiver.taken) == [0, 1, 3, 4, 5]
    counts = line.delivery.statistics()
    assert (counts.written, counts.dropped) == (5, 1)
    assert any(f"{line.log.log_id}:{row} cannot be read" in said for _, said in line.faults)


def test_deliveries_follow_a_log_that_was_taken_away(tmp_path, monkeypatch):
    monkeypatch.setattr(delivery, "_IDLE_SECONDS", 0.02)
    monkeypatch.setattr("hvq_edge.stream.sinks.threads.RETRY_SECONDS", 0.02)
    receiver, turns = Taking(), []
    line = Line(tmp_path / "out", receiver)
    line.write(range(5))
    until(lambda: len(receiver.taken) == 5)
    former = line.log.log_id
    real = line.delivery._rows.read
    line.delivery._rows.read = lambda *args: (turns.append(args), real(*args))[1]
    # In one step: while files are removed one by one, a delivery opens the log anew among them.
    (tmp_path / "out").rename(tmp_path / "gone")
    shutil.rmtree(tmp_path / "gone")
    until(lambda: "not there any more" in line.delivery.statistics().fault)
    began, before = len(turns), time.monotonic()
    time.sleep(0.3)
    rests = (time.monotonic() - before) / delivery._IDLE_SECONDS
    assert len(turns) - began <= rests + 1, "it rests between two attempts"
    line.write(range(5, 9))
    until(lambda: len(receiver.taken) == 9)
    assert frames_of(receiver.taken) == list(range(9))
    assert line.log.log_id != former
    assert [event["id"].split(":")[0] for event in receiver.taken] == [
        *[former] * 5,
        *[line.log.log_id] * 4,
    ]
    counts = line.delivery.statistics()
    assert (counts.written, counts.waiting, counts.dropped) == (9, 0, 0)
    line.close()
    line = Line(tmp_path / "out", receiver)  # the cursor is in the new log
    line.write(range(9, 10))
    until(lambda: len(receiver.taken) == 10)
    line.close()


def test_after_a_cut_off_end_every_new_decision_is_delivered(tmp_path):
    """The ids of the rows that are gone were delivered once; the new rows have others."""
    receiver = Taking()
    line = Line(tmp_path, receiver)
    line.write(range(6))
    until(lambda: len(receiver.taken) == 6)
    line.close()
    with closing(sqlite3.connect(line.log.path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM log WHERE id > 3")
    line = Line(tmp_path, receiver)
    line.write(range(6, 10))
    until(lambda: len(receiver.taken) == 10)
    line.close()
    assert len({event["id"] for event in receiver.taken}) == 10


# A receiver whose answer has no end.


def status(code: int) -> bytes:
    return f"HTTP/1.1 {code} Said\r\n".encode()


ENDLESS = {
    "content": (
        status(200) + b"Transfer-Encoding: chunked\r\n\r\n",
        b"4000\r\n%b\r\n" % bytes(0x4000),
    ),
    "content that is longer than said": (status(200) + b"Content-Length: 9\r\n\r\n", bytes(0x4000)),
    "headers": (status(200), b"X-More: 1\r\n"),
    "interim answers": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "content after a fault": (status(503) + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n0\r\n"),
}


@pytest.mark.parametrize("drips", [False, True], ids=["flood", "drip"])
@pytest.mark.parametrize("answer", ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_an_end_holds_nothing_up(answer, drips):
    begin, more = answer
    sent, ended = [0], threading.Event()

    def serve(listening):
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.recv(1 << 16)
            connection.sendall(begin)
            while not ended.is_set():
                for piece in [more[i : i + 1] for i in range(len(more))] if drips else [more]:
                    connection.sendall(piece)
                    sent[0] += len(piece)
                    if drips:
                        time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        receiver = Webhook(address, "line 1", timeout_seconds=0.2)
        done = []

        def send():
            try:
                receiver.deliver([{"id": "a:1"}])
                done.append("taken")
            except DeliveryFailed as error:
                done.append(str(error))

        threading.Thread(target=send, daemon=True).start()
        until(lambda: done, "it gives the answer up")
        ended.set()
        receiver.close()
    said = begin.startswith(status(200)) and b"\r\n\r\n" in begin
    assert (done == ["taken"]) is said, "its status counts, whatever follows"
    assert sent[0] < 50e6
