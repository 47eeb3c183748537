"""Any change to the decision log is found."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from helpers.decisions import written
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from hvq_edge.cli.app import app
from hvq_edge.errors import InputError
from hvq_edge.stream.log.chain import LogRow, hash_of
from hvq_edge.stream.log.decision_log import LogOptions
from hvq_edge.stream.log.deliveries import Deliveries, Progress
from hvq_edge.stream.log.head import head_path, write_head
from hvq_edge.stream.log.reader import all_rows
from hvq_edge.stream.log.verification import MOST_FAULTS, verify_log


@pytest.fixture(scope="module")
def a_log(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    written(folder / "decisions.sqlite", 12, version="1").close()
    return folder


def altered(a_log: Path, folder: Path, statements) -> Path:
    """A copy of the log, changed by SQL; and its head."""
    copy = folder / "decisions.sqlite"
    for file in folder.iterdir():
        file.unlink()
    for file in a_log.iterdir():
        if not file.name.startswith("."):
            (folder / file.name).write_bytes(file.read_bytes())
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for statement, values in statements:
            assert connection.execute(statement, values).rowcount > 0
    return copy


TAKE_FROM_BACKUP = "take the rows from a backup of the log, and find out who could write to it"


TEXTS = ("kind", "session", "category", "verdict", "reason", "more", "previous", "hash")


NUMBERS = ("time", "score", "latency_ms", "frame")


ROWS = st.integers(1, 15)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(row=ROWS, column=st.sampled_from(TEXTS + NUMBERS), data=st.data())
def test_any_changed_value_is_found(a_log, tmp_path, row, column, data):
    was = getattr(list(all_rows(a_log))[row - 1], column)
    if column in TEXTS:
        value = data.draw(st.text(max_size=70).filter(lambda text: "\0" not in text))
    elif column == "frame":
        value = data.draw(st.integers(-(2**62), 2**62))
    else:
        value = data.draw(st.floats(allow_nan=False, allow_infinity=False))
    if value == was:
        return
    change = (f"UPDATE log SET {column} = ? WHERE id = ?", (value, row))
    found = verify_log(altered(a_log, tmp_path, [change]))
    assert not found.whole
    assert any(fault.row in (row, row + 1) for fault in found.faults)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(row=ROWS)
def test_any_missing_row_is_found(a_log, tmp_path, row):
    found = verify_log(altered(a_log, tmp_path, [("DELETE FROM log WHERE id = ?", (row,))]))
    assert not found.whole
    said = found.faults[0].what
    assert f"row {row} is missing" in said or "cut off" in said or "rows before row 2" in said


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(pair=st.tuples(ROWS, ROWS).filter(lambda pair: pair[0] != pair[1]))
def test_any_two_swapped_rows_are_found(a_log, tmp_path, pair):
    first, second = pair
    swap = [
        ("UPDATE log SET id = 1000 WHERE id = ?", (first,)),
        ("UPDATE log SET id = ? WHERE id = ?", (first, second)),
        ("UPDATE log SET id = ? WHERE id = 1000", (second,)),
    ]
    found = verify_log(altered(a_log, tmp_path, swap))
    assert {fault.row for fault in found.faults} >= {first, second}


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(row=st.integers(2, 15), forged=st.booleans())
def test_any_inserted_row_is_found(a_log, tmp_path, row, forged):
    """Room is made for it by moving the rows behind it; its own hash may be right."""
    rows = list(all_rows(a_log))
    new = rows[row - 1]._replace(id=row, previous=rows[row - 2].hash, reason="nothing to see")
    new = new._replace(hash=hash_of(new) if forged else rows[row - 1].hash)
    marks = ", ".join("?" * len(LogRow._fields))
    found = verify_log(
        altered(
            a_log,
            tmp_path,
            [
                ("UPDATE log SET id = -(id + 1) WHERE id >= ?", (row,)),
                ("UPDATE log SET id = -id WHERE id < 0", ()),
                (f"INSERT INTO log VALUES ({marks})", new),
            ],
        )
    )
    assert not found.whole
    assert min(fault.row for fault in found.faults) in (row, row + 1)
    apart = f"row {row + 1} does not follow row {row}: one of them was put there later"
    assert apart in [fault.what for fault in found.faults]


def test_a_cut_off_end_is_found_by_the_head_alone(a_log, tmp_path):
    copy = altered(a_log, tmp_path, [("DELETE FROM log WHERE id > 9", ())])
    found = verify_log(copy)
    assert [fault.what for fault in found.faults] == [
        "rows 10 to 15 are missing: the end is cut off, for by the head the log once went on to "
        "row 15"
    ]
    assert found.faults[0].next_step == TAKE_FROM_BACKUP
    assert found.notes == [
        f"session {list(all_rows(copy))[1].session} has no end: an inspector is at work, or it was "
        "killed, which the next start records"
    ]
    head_path(copy).unlink()
    found = verify_log(copy)
    (fault,) = found.faults
    assert (fault.row, fault.what) == (
        None,
        f"there is no head {head_path(copy)}, which every log has: whether rows behind row 9 were "
        "cut off is not known",
    )
    assert fault.next_step == (
        "name the head with --head where it is kept elsewhere, as head in [sinks.log] asks, or a "
        "copy of it; where there is none, compare the last row with the last that a webhook or "
        "broker got"
    )
    elsewhere = tmp_path / "elsewhere.head"
    with pytest.raises(InputError) as refused:
        verify_log(copy, elsewhere)
    assert refused.value.cause == f"there is no head {elsewhere}."
    assert refused.value.next_step == "check the path given with --head"


def test_a_log_cut_to_its_first_row_without_its_head_is_not_whole(a_log, tmp_path):
    copy = altered(a_log, tmp_path, [("DELETE FROM log WHERE id > 1", ())])
    head_path(copy).unlink()
    (fault,) = verify_log(copy).faults
    assert f"there is no head {head_path(copy)}, which every log has" in fault.what
    assert "--head" in fault.next_step
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("DELETE FROM log")
    faults = [(fault.row, fault.what) for fault in verify_log(copy).faults]
    assert faults == [
        (None, "the file has lost all its rows"),
        (
            None,
            f"there is no head {head_path(copy)}, which every log has: whether rows behind row 0 "
            "were cut off is not known",
        ),
    ]


def test_a_cut_off_end_is_found_by_what_a_receiver_got(a_log, tmp_path):
    """The head was put back as it was after the first rows, as whoever copied it then could."""
    copy = altered(a_log, tmp_path, [])
    Deliveries(copy).write("webhook", Progress(15))
    assert verify_log(copy).whole
    rows = list(all_rows(copy))
    write_head(head_path(copy), rows[3])
    assert verify_log(copy).whole, "a head may be late"
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("DELETE FROM log WHERE id > 4")
    (fault,) = verify_log(copy).faults
    assert (fault.file, fault.row) == (copy.name, 5)
    assert fault.what == (
        "rows 5 to 15 are missing: the end is cut off, for a receiver (webhook or broker) got row "
        "15"
    )
    assert fault.next_step == TAKE_FROM_BACKUP
    written(copy, 20).close()
    said = [fault.what for fault in verify_log(copy).faults]
    assert any("its end is gone: a receiver got row 15" in what for what in said), "from then on"


@pytest.mark.parametrize("hash_given", ["", "x" * 64, "A" * 64, "0" * 63, "0" * 65])
def test_a_damaged_head_is_a_fault_and_the_rows_are_checked_all_the_same(
    a_log, tmp_path, hash_given
):
    change = ("UPDATE log SET verdict = 'pass' WHERE id = ?", (4,))
    copy = altered(a_log, tmp_path, [change])
    head_path(copy).write_text(json.dumps({"id": 15, "hash": hash_given, "time": 1.0}))
    rows = [(fault.row, fault.what) for fault in verify_log(copy).faults]
    assert [row for row, _ in rows] == [4, None]
    assert "it is damaged: whether rows behind row 15 were cut off is not known" in rows[1][1]
    with pytest.raises(InputError, match="damaged") as refused:
        verify_log(copy, head_path(copy))
    assert refused.value.next_step == "name another copy of it with --head"


def test_a_row_that_the_head_names_and_that_was_taken_out_is_said(a_log, tmp_path):
    """With the ids of the rows behind it closed up, the chain alone would say something else."""
    copy = altered(a_log, tmp_path, [("DELETE FROM log WHERE id = 15", ())])
    rows = list(all_rows(copy))
    write_head(head_path(copy), rows[-1]._replace(id=7))
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.execute("DELETE FROM log WHERE id = 7")
    faults = [(fault.row, fault.what) for fault in verify_log(copy).faults]
    assert faults == [
        (7, "row 7 is missing"),
        (7, "the head names row 7, and it is not there"),
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('{"what":"its end is gone"}', "its end is gone"),
        ("[]", "it is not the one that was written"),
    ],
)
def test_what_an_inspector_found_when_it_started_is_said_with_what_to_do(
    a_log, tmp_path, more, said
):
    change = ("UPDATE log SET kind = 'head_mismatch', more = ? WHERE id = 4", (more,))
    found = verify_log(altered(a_log, tmp_path, [change])).faults
    assert [(fault.row, fault.what) for fault in found] == [
        (4, "row 4 was changed"),
        (
            4,
            "row 4 says that an inspector found the log before row 1 not as it was written: "
            f"{said}",
        ),
    ]
    assert found[1].next_step == (
        "take what was lost from a backup; this stays on record, while the rows behind it are "
        "checked as any: to begin without it, move all files of the log to an archive"
    )


def test_verification_ends_after_twenty_faults_and_says_so(a_log, tmp_path):
    copy = altered(a_log, tmp_path, [("UPDATE log SET time = time + 1, previous = 'x'", ())])
    found = verify_log(copy)
    assert len(found.faults) >= MOST_FAULTS
    assert found.rows < 15
    assert found.notes == ["verification ended early: there are too many faults"]
    assert not found.whole


def test_a_log_of_which_only_the_head_is_left_is_gone(a_log, tmp_path):
    altered(a_log, tmp_path, []).unlink()
    (fault,) = verify_log(tmp_path).faults
    assert fault.what == "the log is gone: by its head it went on to row 15"
    head_path(tmp_path).unlink()
    with pytest.raises(InputError, match="there is no decision log"):
        verify_log(tmp_path)


def test_a_chain_written_anew_is_found_by_the_head(a_log, tmp_path):
    """Whoever knows the code can make every hash right again, but not the head kept elsewhere."""
    rows = list(all_rows(a_log))
    changes, previous = [], rows[3].hash
    for row in rows[4:]:
        new = row._replace(previous=previous, verdict="pass" if row.verdict else None)
        new = new._replace(hash=hash_of(new))
        values = (new.verdict, new.previous, new.hash, row.id)
        changes.append(("UPDATE log SET verdict = ?, previous = ?, hash = ? WHERE id = ?", values))
        previous = new.hash
    (fault,) = verify_log(altered(a_log, tmp_path, changes)).faults
    assert (fault.row, fault.what) == (
        15,
        "row 15 is not the one that the head names: the log was written anew, from some row before "
        "it on, or the head is that of another log",
    )
    assert fault.next_step == (
        "name the log's own head with --head, or compare with a backup from the first row on"
    )


def test_a_damaged_file_is_a_fault_and_no_crash(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 200, LogOptions(9.0, reserve_bytes=0)).close()
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    (damaged, _) = verify_log(path).faults
    assert (damaged.file, damaged.row) == (path.name, None)
    assert damaged.what == "the file is damaged: database disk image is malformed"


def test_a_file_that_begins_with_junk_is_said_without_what_to_do_twice(a_log, tmp_path):
    copy = altered(a_log, tmp_path, [])
    copy.write_bytes(b"junk" * 9 + copy.read_bytes()[36:])
    damaged = verify_log(copy).faults[0]
    assert damaged.what == (
        f"the file is damaged: {copy} is no decision log of hvq-edge, or its beginning is damaged."
    )
    assert damaged.next_step.startswith("take the rows from a backup")


def test_a_first_row_that_follows_another_is_a_fault(a_log, tmp_path):
    """Rows before it were cut off, and those behind it numbered and chained anew."""
    changes, before = [], "ab" * 32
    for row in all_rows(a_log):
        new = row._replace(previous=before)
        before = hash_of(new)
        values = (new.previous, before, row.id)
        changes.append(("UPDATE log SET previous = ?, hash = ? WHERE id = ?", values))
    copy = altered(a_log, tmp_path, changes)
    write_head(head_path(copy), list(all_rows(copy))[-1])
    faults = [(fault.row, fault.what) for fault in verify_log(copy).faults]
    assert faults == [(1, "row 1 claims to follow another row")]


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_is_none_has_no_hash(a_log, number):
    """JSON has none of these: what such a row hashes to would be a matter of who computes it."""
    row = list(all_rows(a_log))[3]._replace(score=number)
    with pytest.raises(ValueError, match="JSON compliant"):
        hash_of(row)


def shown(log: Path) -> None:
    """Show and export a log: it works, or says that the log is damaged."""
    for arguments in (["show"], ["show", "--json"], ["export"], ["export", "--json"]):
        done = CliRunner().invoke(app, ["log", *arguments, str(log)])
        assert done.exception is None or isinstance(done.exception, InputError), done.exception


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    row=ROWS,
    change=st.one_of(
        st.tuples(
            st.sampled_from(("more", "regions", "verdict", "kind")),
            st.one_of(st.text(max_size=9).map(str.encode), st.binary(max_size=9))
            | st.sampled_from([b"[" * 5000, b"9" * 5000, b"[1", b"{}", b"null"]),
        ),
        st.tuples(st.sampled_from(("time", "score")), st.floats(allow_nan=False)),
    ),
)
@example(row=1, change=("reason", b"a\0b"))  # Python 3.10 writes no NUL into CSV
@example(row=1, change=("time", 6.8e16))  # a year that the C library does not count to
def test_showing_a_changed_log_never_ends_in_a_traceback(a_log, tmp_path, row, change):
    column, value = change
    given = "CAST(? AS TEXT)" if isinstance(value, bytes) else "?"
    statement = f"UPDATE log SET {column} = {given} WHERE id = ?"
    shown(altered(a_log, tmp_path, [(statement, (value, row))]))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1), junk=st.binary(min_size=1, max_size=64))
def test_showing_a_log_of_damaged_pages_never_ends_in_a_traceback(a_log, tmp_path, place, junk):
    log = altered(a_log, tmp_path, [])
    content = bytearray(log.read_bytes())
    start = int(place * (len(content) - 1))
    content[start : start + len(junk)] = junk
    log.write_bytes(content)
    shown(log)
