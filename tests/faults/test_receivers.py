"""Receivers that hang and die while the command runs: every reject arrives once, by its id."""

from __future__ import annotations

import json
import socket

import pytest
from helpers.patience import until
from helpers.receivers import MOSQUITTO, Broker, Listener, http  # noqa: F401  # fixtures
from helpers.running_line import LONGEST_STOP, RunningLine, save_film, save_line_bundle

SETTINGS = """
[sinks.webhook]
url = "{url}"
timeout_seconds = 0.5

[sinks.mqtt]
host = "127.0.0.1"
port = {port}
line = "line 1"
verdicts = ["reject"]
timeout_seconds = 1.0
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_line_bundle(tmp_path_factory.mktemp("receivers") / "bundle")


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_hanging_webhook_and_a_broker_that_restarts(bundle, tmp_path, http):
    """The broker is stopped; the subscriber has a session there that outlasts it."""
    broker = Broker(tmp_path)
    listener = Listener(broker.port)
    settings = tmp_path / "stream.toml"
    settings.write_text(SETTINGS.format(url=http.url, port=broker.port))
    film = save_film(tmp_path / "film.avi", 100)
    arguments = ["--config", settings, "--bundle", bundle.path, "--camera", film, "--play"]
    http.mode = "hang"
    try:
        with RunningLine(tmp_path, *arguments) as line:
            line.wait_for_message("Warning: webhook: it did not answer in time")
            line.wait_for(2, "reject")
            broker.stop()
            line.wait_for_message("Warning: mqtt:")
            line.wait_for(2, "reject")
            broker.start()
            line.wait_for(1, "reject")
            http.mode = "take"
            until(lambda: len(ids(http.taken)) >= 5, "the webhook delivers again")
            until(lambda: len(ids(listener.decisions())) >= 5, "the broker delivers again")
            assert line.stop() < LONGEST_STOP
        counts = line.assert_it_fits()
        assert counts["rejected"] >= 5
        log_id = line.events("file")[0]["log"]
        rejects = {f"{log_id}:{row['id']}" for row in line.rows() if row["verdict"] == "reject"}
        if ids(http.taken) != rejects or ids(listener.decisions()) != rejects:
            # What the last moments left waiting is sent after the next start.
            with RunningLine(tmp_path / "again", *arguments, out=line.out) as again:
                until(lambda: ids(http.taken) >= rejects, "the webhook has all")
                until(lambda: ids(listener.decisions()) >= rejects, "the broker has all")
                again.stop()
            again.assert_it_fits()
    finally:
        listener.close()
        broker.stop()
    assert {one["verdict"] for one in http.taken + listener.decisions()} == {"reject"}
    assert len(http.taken) >= len(rejects), "twice where an answer was lost, never less than once"


def ids(events: list[dict]) -> set[str]:
    return {event["id"] for event in events}


def test_a_live_source_ends_in_time_though_nobody_answers(bundle, tmp_path, http):
    http.mode = "hang"
    with socket.socket() as silent:  # takes connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        settings = tmp_path / "stream.toml"
        port = silent.getsockname()[1]
        settings.write_text(SETTINGS.format(url=http.url, port=port).replace("1.0", "60.0"))
        film = save_film(tmp_path / "film.avi", 100)
        arguments = ["--config", settings, "--bundle", bundle.path, "--camera", film, "--play"]
        with RunningLine(tmp_path, *arguments) as line:
            line.wait_for(3, "reject")
            assert line.stop() < LONGEST_STOP
    counts = line.assert_it_fits()
    progress = json.dumps([row["kind"] for row in line.rows()])
    assert "session_end" in progress
    assert counts["rejected"] >= 3
    assert http.taken == []
