"""The decision log: one chain over sessions and files, whole after a kill and on a full disk."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from helpers.decisions import AT_ONCE, made, written
from helpers.paths import with_helpers
from helpers.small_disk import in_private_mount

from hvq_edge.errors import InputError, OutputError
from hvq_edge.stream.log.chain import (
    GENESIS,
    LogRow,
    as_json,
    chained,
    decision_row,
    event_row,
    fields_of,
    hash_of,
    moment_of,
    names_of,
)
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.head import head_path, write_head
from hvq_edge.stream.log.reader import RowsAfter, all_rows, last_rows
from hvq_edge.stream.log.sqlite_file import LogFile, make_log_file
from hvq_edge.stream.log.verification import verify_log
from hvq_edge.stream.sinks.threads import SinkThread
from hvq_edge.verdict.decision import Decision, PartVerdict
from hvq_edge.verdict.regions import Region

KILLS = 10
"""Rounds of the kill test; docs/explanation/line.md has the numbers of longer ones."""


def test_a_log_of_two_sessions_is_one_chain(tmp_path):
    path = tmp_path / "out" / "decisions.sqlite"
    for run in range(2):
        written(path, 3, version="1.2", run=run).close()
    rows = list(all_rows(path))
    assert [row.kind for row in rows] == [
        "file",
        *["session_start", *["decision"] * 3, "session_end"] * 2,
    ]
    assert [row.id for row in rows] == list(range(1, 12))
    assert rows[0].previous == GENESIS
    assert [row.previous for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert json.loads(rows[1].more) == {"version": "1.2", "run": 0}
    assert json.loads(rows[5].more) == {"counts": {"pass": 1, "reject": 1, "no_decision": 1}}
    decision = made(1, "reject")[0]
    fields = fields_of(rows[3])
    assert {name: fields[name] for name in json.loads(decision.to_json())} == json.loads(
        decision.to_json()
    ), "every field of a decision is in its row"
    found = verify_log(path)
    assert found.whole
    assert (found.rows, found.decisions, found.sessions, found.head_id) == (11, 6, 2, 11)
    assert found.notes == []


def test_new_fields_of_a_decision_are_kept(tmp_path):
    decision, frame = made(0, "reject")
    fields = {**decision.fields(), "camera": "left", "grade": "B"}
    fields["regions"] = [{"box": [1, 2, 3, 4], "area_px": 12}]

    class Later:
        def fields(self):
            return dict(fields)

    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), AT_ONCE)
    log.write(Later(), frame)
    log.tick()
    log.close()
    (row,) = last_rows(tmp_path, 1, ["reject"])
    assert row.camera == "left"
    assert json.loads(row.regions) == fields["regions"]
    assert fields_of(row).items() >= fields.items()


def test_a_row_read_again_has_what_the_decision_had_and_nothing_of_the_chain():
    decision, _ = made(0, "reject")
    fields = decision.fields()
    del fields["regions"]

    class WithoutRegions:
        def fields(self):
            return dict(fields)

    row = chained(decision_row(WithoutRegions(), "s"), None)
    assert row.regions is None
    found = fields_of(row)
    assert found.keys() <= {"kind", "session", *fields}
    assert found == {**found, "kind": "decision", "session": "s"}
    assert {name: found.get(name) for name in fields} == fields
    assert all(name in json.loads(row.more) for name, value in found.items() if value is None)


def test_a_decision_with_a_number_that_is_none_is_refused():
    decision, _ = made(0, "reject")
    with pytest.raises(ValueError, match="a decision with nan cannot be logged"):
        decision_row(replace(decision, score=float("nan")), "s")


def test_a_time_that_no_calendar_has_is_refused():
    with pytest.raises((OverflowError, ValueError), match=r"is no time|out of range"):
        moment_of(6.8e16)


def test_the_head_stands_beside_its_log(tmp_path):
    log = tmp_path / "decisions.sqlite"
    assert head_path(log) == tmp_path / "decisions.sqlite.head"


def test_names_of_a_row_are_text_or_nothing():
    row = event_row("decision", "", 0.0, {"image": "a.png", "part": "SN-1", "grade": "B"})
    assert names_of(row) == {"image": "a.png", "part": "SN-1"}
    for damaged in ("{", "[]", '{"image": 7, "part": null}', "{}"):
        assert names_of(row._replace(more=damaged)) == {"image": None, "part": None}


def test_a_number_that_is_none_has_no_hash():
    row = event_row("decision", "", 0.0, {})
    for field in ("score", "latency_ms", "time"):
        with pytest.raises(ValueError, match="JSON"):
            hash_of(row._replace(**{field: float("nan")}))


def test_the_bytes_of_a_row_never_change():
    """Hashes of rows that an earlier version wrote: old logs must go on to verify."""
    region = Region((1, 2, 3, 4), 12.34, None, 0.7500001, np.array([[1, 2], [3, 5]], np.int32))
    decision = Decision(
        frame=7,
        time=1765000000.1234567,
        category="bolt",
        score=-0.0,
        verdict="reject",
        reason="bytes \udcff, a null \0 and ü",
        latency_ms=4.56789,
        camera="left",
        regions=(region,),
        grade="B",
        part_verdict=PartVerdict(3, "reject", 4, 2, 1),
        p_value=0.0125,
        image="film.mp4#7",
        part="SN-1",
    )
    before = event_row("file", "", 0.0, {})._replace(id=11, hash="ab" * 32)
    row = chained(decision_row(decision, "s1"), before)
    assert (row.id, row.hash) == (
        12,
        "356f72da8ff05a40ed8e622f82d11437e0aa623ea02ac7cfc10f56b2541d6c71",
    )
    part = json.loads(row.more)["part_verdict"]
    former = row._replace(more=as_json({"grade": "B", "p_value": 0.0125, "part": part}))
    row = chained(former, before)
    assert row.hash == "891c8e33690b08aabe48ce253787dcfacea2f0a104f3d6e477f1b3303bd1ec76"
    changed = {"category": "bolt", "from": None, "to": 1.5}
    event = chained(event_row("threshold", "s1", 1765000000.5, changed), row)
    assert event.hash == "74414fdc30c176973562566ae24c28898a972f914bcff8440ba4031cadcb62a6"


FORMER = r"""
[1,"file","",1795918056.4017055,null,null,null,null,null,null,null,null,"{\"continues\":false,\"log\":\"2fd6f9207ca74b6ea0cdd3704ad11c84\"}","0000000000000000000000000000000000000000000000000000000000000000","61ecc2124d2b960b100e5909a348775a5e4e8900fbc587ce24b6cc523587b9ad"]
[2,"session_start","00000000000000000000000000000001",1795918056.4120867,null,null,null,null,null,null,null,null,"{\"cameras\":[\"left\"],\"thresholds\":{\"bolt\":1.0},\"version\":\"0.1.0\"}","61ecc2124d2b960b100e5909a348775a5e4e8900fbc587ce24b6cc523587b9ad","a5bcd18ff3c4abbf9df707c1263242b7a081751d076665a170078a932f8bb4fe"]
[3,"decision","00000000000000000000000000000001",1765000000.25,"left",0,"bolt",0.5,"pass","score 0.5 within threshold 1",4.5,"[]","{\"grade\":null,\"p_value\":0.5,\"part\":null}","a5bcd18ff3c4abbf9df707c1263242b7a081751d076665a170078a932f8bb4fe","a93a55ac56ec610737fdeb74c947685f33326ba092cd839beaa494abfdcb1eff"]
[4,"decision","00000000000000000000000000000001",1765000001.25,"left",1,"bolt",2.25,"reject","score 2.25 above threshold 1",4.5,"[]","{\"grade\":null,\"p_value\":0.5,\"part\":{\"above\":1,\"frames\":2,\"number\":0,\"undecided\":0,\"verdict\":\"reject\"}}","a93a55ac56ec610737fdeb74c947685f33326ba092cd839beaa494abfdcb1eff","dbfb9f516754ced8781ebe231aa5aa0a821468505522814885b9160681b79b04"]
[5,"session_end","00000000000000000000000000000001",1795918056.4135454,null,null,null,null,null,null,null,null,"{\"counts\":{\"no_decision\":0,\"pass\":0,\"reject\":0}}","dbfb9f516754ced8781ebe231aa5aa0a821468505522814885b9160681b79b04","4821115f632ead2cda76165482972d9b446000a28eade18961a75b3e836e8a6e"]
"""  # noqa: E501
"""Rows of a log from before decisions had names: ``part`` was the verdict on several frames."""


def test_a_log_of_the_former_form_still_verifies_and_goes_on(tmp_path):
    rows = [LogRow(*json.loads(line)) for line in FORMER.strip().splitlines()]
    path = tmp_path / "decisions.sqlite"
    make_log_file(path, rows[0])
    file = LogFile(path)
    file.append(rows[1:])
    file.close()
    write_head(head_path(path), rows[-1])
    assert verify_log(path).whole
    names = [fields_of(row) for row in last_rows(path, 2, ["pass", "reject"])]
    assert [one["part"] for one in names[:1]] == [None]
    assert "part" not in names[1]
    assert names[1]["part_verdict"]["verdict"] == "reject"
    assert names_of(rows[3]) == {"image": None, "part": None}

    written(path, 2, part="a session is no part").close()
    log = DecisionLog(path, Session(), AT_ONCE)
    for index, part in enumerate(['SN "1"\x1d\0ü\n', "SN 2", 'SN "1"\x1d\0ü\n', "S", None]):
        decision, frame = made(index, "pass", '","part":"S')
        log.write(replace(decision, part=part), frame)
    log.close()
    assert verify_log(path).whole
    for part, frames in (('SN "1"\x1d\0ü\n', [0, 2]), ("SN 2", [1]), ("S", [3]), ("N", [])):
        assert [row.frame for row in last_rows(path, None, None, part)] == frames
        assert [row.frame for row in all_rows(path, part)] == frames
    assert [row.frame for row in last_rows(path, 1, ["pass"], 'SN "1"\x1d\0ü\n')] == [2]
    assert last_rows(path, 1, ["reject"], "SN 2") == []
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE log SET more = replace(more, 'SN 2', 'SN 3')")
    assert not verify_log(path).whole, "the chain covers the names"


def test_text_that_is_none_and_odd_numbers_come_back_the_same(tmp_path):
    """A row must read back exactly as it was hashed."""
    log = DecisionLog(tmp_path / "decisions.sqlite", Session({"file": "\udcff"}), AT_ONCE)
    decision, frame = made(0)
    object.__setattr__(decision, "score", -0.0)
    object.__setattr__(decision, "reason", "bytes \udcff, a null \0 and ü")
    log.write(decision, frame)
    log.event("gap", {"camera": "\udc80"})
    log.tick()
    log.close()
    assert verify_log(tmp_path).whole


def test_commits_come_in_groups(tmp_path):
    log = DecisionLog(tmp_path / "a.sqlite", Session(), LogOptions(0.3, reserve_bytes=0))
    commits = []
    log.on_commit = commits.append
    log.write(*made(0))
    wait = log.tick()
    assert 0 < wait <= 0.3
    log.write(*made(1))
    assert (log.pending, commits) == (2, [])
    time.sleep(wait)
    assert log.tick() is None
    assert [len(rows) for rows in commits] == [2]
    assert log.pending == 0
    log.close()


def test_two_inspectors_do_not_write_one_log(tmp_path):
    log = written(tmp_path / "decisions.sqlite", 1)
    with pytest.raises(OutputError, match="another inspector"):
        DecisionLog(tmp_path / "decisions.sqlite", Session())
    log.close()
    DecisionLog(tmp_path / "decisions.sqlite", Session()).close()


def test_another_database_is_left_alone(tmp_path):
    path = tmp_path / "decisions.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (a)")
        other.commit()
    before = path.read_bytes()
    with pytest.raises(InputError, match="another program"):
        DecisionLog(path, Session())
    with pytest.raises(InputError, match="no decision log"):
        verify_log(path)
    assert path.read_bytes() == before


def test_an_unclean_end_is_on_record(tmp_path):
    first = written(tmp_path / "decisions.sqlite", 2)
    first._file.close()
    first._lock.release()  # as a kill does
    written(tmp_path / "decisions.sqlite", 1).close()
    rows = list(all_rows(tmp_path))
    (lost,) = [row for row in rows if row.kind == "session_lost"]
    assert lost.session == first.session.id
    assert json.loads(lost.more)["last_id"] == lost.id - 1
    found = verify_log(tmp_path)
    assert (found.whole, found.sessions, found.lost_sessions) == (True, 2, 1)


def test_the_chain_goes_on_over_files(tmp_path):
    path = tmp_path / "decisions.sqlite"
    options = LogOptions(0.0, file_bytes=1, head_seconds=0.0, reserve_bytes=0)
    log = written(path, 3, options)
    log.close()
    assert [file.name for file in chain_files(path)] == [
        "decisions.sqlite",
        "decisions.000002.sqlite",
        "decisions.000003.sqlite",
        "decisions.000004.sqlite",
    ]
    written(path, 1, options).close()
    found = verify_log(tmp_path / "decisions.000002.sqlite")
    assert (found.whole, found.decisions, found.sessions, found.lost_sessions) == (True, 4, 2, 0)
    path.unlink()
    found = verify_log(path)
    assert found.whole
    assert found.notes == [
        f"rows before {found.first_id} are no longer there: older files were removed, as "
        "keep_megabytes or keep_days asks, or by hand"
    ]
    (tmp_path / "decisions.000003.sqlite").unlink()
    assert [fault.what for fault in verify_log(path).faults] == ["rows 6 to 7 are missing"]


def test_rows_after_a_cursor_over_files(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 60, LogOptions(0.0, file_bytes=30_000, reserve_bytes=0)).close()
    assert len(chain_files(path)) > 1
    reader = RowsAfter(path, ["reject"])
    assert reader.count(0) == 20
    read, cursor = [], 0
    while True:
        rows, cursor = reader.read(cursor, 3)
        if not rows:
            break
        read += rows
    assert [row.frame for row in read] == list(range(1, 60, 3))
    assert cursor == reader.last_id() == list(all_rows(path))[-1].id
    reader.close()


# A kill at any moment.


def test_a_kill_loses_nothing_that_was_committed(tmp_path):
    command = [sys.executable, "-m", "helpers.killed_writer", tmp_path, str(KILLS)]
    done = subprocess.run(command, capture_output=True, text=True, env=with_helpers())
    assert done.returncode == 0, done.stderr
    rounds, lost_sessions, decisions, _files = map(int, done.stdout.split())
    assert rounds == KILLS
    assert lost_sessions >= KILLS // 2, "every other writer had begun when it was killed"
    assert decisions >= KILLS // 2


# A full disk.

FILL = """
import sys, time
from pathlib import Path
from helpers.decisions import made
from hvq_edge.stream.sinks import threads
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
threads.RETRY_SECONDS = 0.02
folder = Path(sys.argv[1])
faults = []
log = DecisionLog(folder / "decisions.sqlite", Session(), LogOptions(0.0, reserve_bytes={reserve}))
thread = threads.SinkThread(log, "log", "wait", 8, report=lambda *said: faults.append(said))
def write(count):
    for index in range(count):
        thread.write(*made(index, "reject"))
    while thread.statistics().waiting:
        time.sleep(0.005)
write(5)
ballast = folder / "ballast"
with ballast.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        pass
write(30)
full = thread.statistics()
assert full.dropped, full
assert faults and (full.fault or not {reserve}), (full, faults)  # without one it may find a hole
ballast.unlink()
while thread.statistics().fault:
    time.sleep(0.005)
write(5)
thread.close()
end = thread.statistics()
assert end.written + end.dropped == 40 and not end.waiting and not end.fault, end
print(end.dropped, end.written, faults[0][1])
import json
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.log.verification import verify_log
rows = list(all_rows(folder))
gaps = [row for row in rows if row.kind == "not_recorded"]
missing = sum(json.loads(gap.more)["decisions"] for gap in gaps)
print(missing, sum(row.kind == "decision" for row in rows))
print(verify_log(folder).whole, rows[-1].kind)
"""


@pytest.mark.parametrize("reserve", [0, 200_000])
def test_a_full_disk_stops_the_recording_until_there_is_room(tmp_path, reserve):
    """Without a reserve SQLite itself meets the full disk."""
    printed = in_private_mount("size=1m", FILL.format(reserve=reserve), tmp_path)
    counts, rows, whole = printed.splitlines()
    dropped, kept, said = counts.split(" ", 2)
    assert rows == f"{dropped} {kept}", "the log itself says how many are not in it"
    assert int(dropped) > 0
    assert "full" in said or "are free" in said
    assert whole == "True session_end"


def test_a_log_behind_a_thread_counts_everything(tmp_path):
    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), LogOptions(0.01, reserve_bytes=0))
    thread = SinkThread(log, "log", "wait", 4)
    for index in range(50):
        thread.write(*made(index))
        counts = thread.statistics()
        assert counts.written >= 0
        assert counts.written + counts.waiting + counts.dropped == index + 1
    thread.call(lambda: log.event("threshold", {"category": "bolt", "from": 3.0, "to": 2.5}))
    thread.close()
    assert thread.statistics().written == 50
    kinds = [row.kind for row in all_rows(tmp_path)]
    assert kinds[-2:] == ["threshold", "session_end"]
