"""Who else has a hand in a log while it is written: another line, a person, another program."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from helpers.decisions import AT_ONCE, made, written
from helpers.patience import until

from hvq_edge.errors import OutputError
from hvq_edge.stream.log import decision_log, sqlite_file
from hvq_edge.stream.log.chain import event_row
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.log.sqlite_file import LogFile
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.sinks.threads import SinkThread


def test_two_inspectors_never_write_to_one_log(tmp_path):
    """Though somebody removes the lock."""
    path = tmp_path / "decisions.sqlite"
    first = written(path, 2)
    (tmp_path / ".decisions.sqlite.lock").unlink()
    second = written(path, 2)
    first.write(*made(2))
    for said in ("the lock", "another inspector"):
        with pytest.raises(OutputError, match=said):
            first.tick()
    second.close()
    first.tick()
    first.close()
    rows = [row for row in all_rows(path) if row.session == first.session.id]
    assert [row.frame for row in rows if row.verdict] == [0, 1, 2], "it waited"
    assert rows[-1].kind == "session_end"
    assert verify_log(path).whole


def test_rows_that_another_one_wrote_meanwhile_cost_none(tmp_path):
    """Between the look at the lock and the commit, or by a program that takes no lock."""
    path = tmp_path / "decisions.sqlite"
    log = written(path, 2)
    last = LogFile(path)
    last.append([decision_log.chained(event_row("gap", "", 5.0, {}), log.last)])
    last.close()
    log.write(*made(2))
    with pytest.raises(OutputError, match="another inspector"):
        log.tick()
    log.tick()
    log.close()
    assert [row.frame for row in all_rows(path) if row.verdict] == [0, 1, 2]
    assert verify_log(path).whole


def deleted(folder: Path) -> None:
    shutil.rmtree(folder)


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


@pytest.mark.parametrize("harm", [deleted, moved])
def test_a_folder_that_goes_away_is_a_fault_and_a_new_log(tmp_path, monkeypatch, harm):
    monkeypatch.setattr("hvq_edge.stream.sinks.threads.RETRY_SECONDS", 0.02)
    path = tmp_path / "out" / "decisions.sqlite"
    log = DecisionLog(path, Session({"version": "1"}), LogOptions(0.0, reserve_bytes=0))
    former, told = log.log_id, []
    thread = SinkThread(log, "log", "wait", 8, report=lambda *said: told.append(said))
    for index in range(5):
        thread.write(*made(index))
    until(lambda: not thread.statistics().waiting)
    harm(path.parent)
    for index in range(5, 9):
        thread.write(*made(index))
    until(lambda: not thread.statistics().waiting)
    thread.close()
    assert [name for name, _ in told] == ["log"]
    assert "was moved or removed while it was recorded" in told[0][1]
    kinds = [row.kind for row in all_rows(path)]
    begin = ["file", "head_mismatch", "session_start"]
    assert kinds == [*begin, *["decision"] * 4, "session_end"], "not one is lost from then on"
    assert log.log_id != former
    assert not verify_log(path).whole
    if harm is moved:
        assert [row.frame for row in all_rows(tmp_path / "moved") if row.verdict] == [0, 1, 2, 3, 4]


def test_a_folder_that_is_gone_at_the_end_is_no_traceback(tmp_path):
    log = written(tmp_path / "out" / "decisions.sqlite", 3)
    shutil.rmtree(tmp_path / "out")
    log.close()
    assert [row.kind for row in all_rows(tmp_path / "out")][-1] == "session_end"


# A lock of another program.


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A log that another program has locked until it is told to let go."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.02)
    written(tmp_path / "decisions.sqlite", 1).close()
    other = sqlite3.connect(
        tmp_path / "decisions.sqlite", isolation_level=None, check_same_thread=False
    )

    def lock():
        other.execute("BEGIN IMMEDIATE")

    yield lock, lambda: other.execute("ROLLBACK")
    other.close()


def test_a_lock_loses_no_decision(tmp_path, monkeypatch, locked):
    monkeypatch.setattr("hvq_edge.stream.sinks.threads.RETRY_SECONDS", 0.02)
    lock, let_go = locked
    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), AT_ONCE)
    told = []
    thread = SinkThread(log, "log", "drop", 64, report=lambda *said: told.append(said))
    lock()
    thread.write(*made(0))
    until(lambda: told)
    for index in range(1, 20):
        thread.write(*made(index))
    until(lambda: log.pending == 20)
    counts = thread.statistics()
    assert (counts.written, counts.waiting, counts.dropped) == (0, 20, 0)
    assert "keeps it locked" in counts.fault, "as long as it lasts"
    let_go()
    until(lambda: thread.statistics().written == 20)
    until(lambda: thread.statistics().fault == "")
    thread.close()
    assert [row.frame for row in all_rows(tmp_path) if row.verdict][1:] == list(range(20))


def test_files_wait_for_a_lock_and_a_camera_counts_what_has_no_room(tmp_path, monkeypatch, locked):
    monkeypatch.setattr("hvq_edge.stream.sinks.threads.RETRY_SECONDS", 0.02)
    monkeypatch.setattr(decision_log, "MOST_PENDING", 3)
    lock, let_go = locked
    for waits in True, False:
        options = LogOptions(0.0, reserve_bytes=0, waits=waits)
        log = DecisionLog(tmp_path / "decisions.sqlite", Session(), options)
        thread = SinkThread(log, "log", "wait" if waits else "drop", 2)
        lock()

        def hand_over(to=thread, of=log, waits=waits):
            for index in range(20):
                to.write(*made(index))
                if not waits:  # else the thread's own queue drops what the log should refuse
                    until(lambda: to.statistics().waiting == of.pending)

        handed = threading.Thread(target=hand_over)
        handed.start()
        until(lambda of=log: of.pending == 3)
        if not waits:
            handed.join()
            until(lambda of=thread: of.statistics().dropped >= 15)
        let_go()
        handed.join()
        thread.close()
        counts = thread.statistics()
        assert counts.written + counts.dropped == 20
        assert (counts.dropped == 0) is waits
        rows = [row for row in all_rows(tmp_path) if row.session == log.session.id]
        assert sum(row.verdict is not None for row in rows) == counts.written
        missed = [json.loads(row.more)["decisions"] for row in rows if row.kind == "not_recorded"]
        refused = log._unrecorded + sum(missed)
        assert refused <= counts.dropped
        assert bool(missed) is not waits
    assert verify_log(tmp_path).whole


@pytest.mark.parametrize("ends", [True, False], ids=["and the run ends", "and it goes on"])
def test_what_found_no_room_while_the_disk_hung_has_a_row(tmp_path, monkeypatch, ends):
    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), AT_ONCE)
    hangs, go, append = threading.Event(), threading.Event(), LogFile.append

    def slow(file, rows):
        hangs.set()
        go.wait()
        append(file, rows)

    monkeypatch.setattr(LogFile, "append", slow)
    thread = SinkThread(log, "log", "drop", 4)
    thread.write(*made(0))
    hangs.wait()
    for index in range(1, 20):
        thread.write(*made(index))
    assert thread.statistics().dropped == 15
    if ends:
        thread.begin_close()
    go.set()
    if not ends:
        until(lambda: thread.statistics().written == 5)
    thread.close()
    rows = list(all_rows(tmp_path))
    assert [row.frame for row in rows if row.verdict] == [0, 1, 2, 3, 4]
    said = [json.loads(row.more) for row in rows if row.kind == "not_recorded"]
    assert sum(one["decisions"] for one in said) == 15
    assert verify_log(tmp_path).whole


def test_what_was_missed_does_not_make_a_commit_of_its_own_of_each_decision(tmp_path):
    """A disk that is slow must get up again after its queue was full once."""
    options = LogOptions(commit_seconds=1000.0, head_seconds=1000.0, reserve_bytes=0)
    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), options)
    begun = log.last.id
    for index in range(20):
        log.missed(1, 1700000000.0)
        log.write(*made(index))
        log.tick()
    assert log.pending == 20, "they wait for their group"
    assert log.last.id == begun
    log.close()
    rows = list(all_rows(tmp_path))
    assert [json.loads(row.more)["decisions"] for row in rows if row.kind == "not_recorded"] == [20]
