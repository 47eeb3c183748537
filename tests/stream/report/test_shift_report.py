"""The shift report: what the log says of a line between two moments."""

from __future__ import annotations

import csv
import json
import re
import time
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from helpers.commands import exit_code
from helpers.decisions import made
from helpers.reviewed_line import open_recording

from hvq_edge.errors import InputError
from hvq_edge.stream.log.decision_log import DecisionLog, Session
from hvq_edge.stream.log.reviews import append_review
from hvq_edge.stream.report.shift import gather_shift, moments
from hvq_edge.stream.review.desk import ReviewDesk

START = 1_700_000_000.5
"""Of the first decision of :func:`helpers.decisions.made`."""


@pytest.fixture(scope="module")
def out(tmp_path_factory) -> Path:
    """Two hours: rejects of two cameras, a changed threshold, an alarm of a kind not known here."""
    out = tmp_path_factory.mktemp("recorded")
    sinks = open_recording(out, sample=1.0, near=0.0)
    controls = sinks.watch._controls
    assert controls is not None
    for index, verdict in enumerate(("pass", "reject", "no_decision", "reject", "pass", "pass")):
        decision, frame = made(index, verdict)
        camera = "=left" if index % 2 else "<b>right"
        at = START + 3600 * (index // 3)
        part = f"SN-{index // 2}"
        sinks.write(replace(decision, camera=camera, time=at, part=part), frame)
        if index == 2:
            controls.set_threshold("bolt", 2.5, "Ada")
            sinks.event("weather", {"camera": "left", "what": "light", "by": 0.31, "e": [1, 2]})
    sinks.close(None)
    desk = ReviewDesk(out, lambda review: append_review(out, review))
    first, second = (one.candidate.id for one in desk.listed("reject"))
    desk.judge(first, "good", by="Ada")
    desk.judge(second, "defective", by="Bo", defect="scratch")
    return out


def span(hours: float, begin: float = START - 1) -> tuple[datetime, datetime]:
    since = datetime.fromtimestamp(begin, tz=timezone.utc)
    return since, since + timedelta(hours=hours)


def test_counts_are_those_of_the_log(out):
    shift = gather_shift(out, *span(3))
    total = shift.total
    assert (total.passed, total.rejected, total.no_decision, shift.parts) == (3, 2, 1, 3)
    assert (total.judged_rejects, total.good_rejects) == (2, 1)
    assert {key: one.decisions for key, one in shift.by(lambda cell: cell.camera).items()} == {
        "<b>right": 3,
        "=left": 3,
    }
    assert [one.decisions for one in shift.by(lambda cell: cell.hour).values()] == [3, 3]
    assert shift.defects == {("bolt", "scratch"): 1}
    assert shift.reasons == {("reject", "because"): 2, ("no_decision", "because"): 1}
    assert [one.candidate.frame for one in shift.worst] == [3, 1], "of 6 above 2.5, then above 3"
    assert all(one.image for one in shift.worst)
    assert shift.verification is not None
    assert shift.verification.whole


def test_only_the_time_that_was_asked_for_counts(out):
    shift = gather_shift(out, *span(0.5))
    assert (shift.total.decisions, shift.total.rejected) == (3, 1)
    assert shift.numbers is not None
    assert (shift.numbers.rejects, shift.numbers.passes) == (1, 1)
    assert [(review.by, review.defect) for review in (one.review for one in shift.worst)] == [
        ("Bo", "scratch")
    ]
    with pytest.raises(InputError, match="nothing lies between") as caught:
        gather_shift(out, *span(-1))
    first, last = (
        f"{datetime.fromtimestamp(START + at).astimezone():%Y-%m-%d %H:%M:%S}" for at in (0, 3600)
    )
    assert f"the log's decisions are from {first} to {last}" in caught.value.cause


def test_events_are_reported_whatever_their_kind(out):
    now = datetime.now(tz=timezone.utc).timestamp()
    shift = gather_shift(out, *span(1, now - 1800))
    (change,) = shift.changes
    assert (change.category, change.former, change.value, change.by) == ("bolt", 3.0, 2.5, "Ada")
    (alarm,) = shift.alarms
    assert (alarm.kind, alarm.said) == ("weather", "by 0.31; camera left; e [1, 2]; what light")
    assert [one.kind for one in shift.usual] == ["session_start", "session_end"]


def test_a_bundle_that_was_changed_between_two_runs_is_told_of(tmp_path):
    for value in (3.0, 3.0, 2.0):
        session = Session({"thresholds": {"bolt": value}})
        DecisionLog(tmp_path / "decisions.sqlite", session).close()
    now = datetime.now(tz=timezone.utc).timestamp()
    (change,) = gather_shift(tmp_path, *span(1, now - 1800)).changes
    assert (change.former, change.value, change.between_runs) == (3.0, 2.0, True)


def test_the_page_prints_offline_and_names_are_text(out, tmp_path, capsys):
    page, table = tmp_path / "shift.html", tmp_path / "shift.csv"
    since, until = (at.isoformat() for at in span(3))
    command = ["log", "report", str(out), "--from", since, "--to", until, "--out", str(page)]
    assert exit_code(*command, "--csv", str(table), "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["decisions"], said["reject"], said["log_is_whole"]) == (6, 2, True)
    assert said["reviews"]["false_rejects"]["share"]["value"] == 0.5
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []
    assert "http" not in text.replace("http-equiv", "")
    assert "<b>right" not in text
    assert "&lt;b&gt;right" in text
    assert "Sorted by how far the score is above the threshold" in text
    assert re.findall(r"[\d.]+ % above [\d.]+", text) == ["140 % above 2.5", "100 % above 3"]
    assert "50 %: all were judged" in text
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert sum(int(row["decisions"]) for row in rows) == 6
    assert {row["camera"] for row in rows} == {"'=left", "<b>right"}, "no formula for a spreadsheet"


def test_without_decisions_the_report_says_so(out, tmp_path, capsys):
    page = tmp_path / "empty.html"
    assert exit_code("log", "report", str(out), "--to", "2001-01-01", "--out", str(page)) == 0
    said = capsys.readouterr().out
    assert "0 decisions from 2001-01-01 00:00 to 2001-01-02 00:00" in said
    assert "None lies in this time: the log's decisions are from 2023-11-" in said
    text = page.read_text(encoding="utf-8")
    assert "no decision between these moments: the log&#39;s decisions are from 2023-11-" in text
    future = str(datetime.now().year + 1)
    assert exit_code("log", "report", str(out), "--from", f"{future}-01-01") == 2
    assert "the log's decisions are from 2023-11-" in capsys.readouterr().err
    log = tmp_path / "new" / "decisions.sqlite"
    DecisionLog(log, Session()).close()
    assert exit_code("log", "report", str(log), "--out", str(page)) == 0
    assert "the log has no decision at all" in capsys.readouterr().out


@pytest.mark.parametrize(("day", "hours"), [("2026-10-25", 25), ("2026-03-29", 23)])
def test_a_day_on_which_the_clocks_change_is_whole(monkeypatch, day, hours):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    try:
        begins = datetime.fromisoformat(day).astimezone()
        assert moments(day, day) == (begins, begins + timedelta(hours=hours))
        afternoon = datetime.fromisoformat(f"{day}T14:00").astimezone()
        assert moments(None, None, afternoon) == (begins, afternoon)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_day_after_which_there_is_none_is_no_time():
    with pytest.raises(InputError, match="--to 9999-12-31 is no time"):
        moments(None, "9999-12-31")


def test_times_are_those_of_a_person():
    now = datetime(2026, 11, 29, 10, 30).astimezone()
    assert moments(None, None, now) == (now.replace(hour=0, minute=0), now)
    since, until = moments("2026-11-28", "2026-11-28", now)
    assert (since.date(), until - since) == (now.date() - timedelta(days=1), timedelta(days=1))
    assert moments("2026-11-28T06:00Z", None, now)[0] == datetime(
        2026, 11, 28, 6, tzinfo=timezone.utc
    )
    with pytest.raises(InputError, match="--from yesterday is no time"):
        moments("yesterday", None, now)
