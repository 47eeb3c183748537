"""What stands where the log should be is compared with what was written, at each start and on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.decisions import AT_ONCE, execute, log_ids, made, written

from hvq_edge.errors import InputError, OutputError
from hvq_edge.stream.log import decision_log
from hvq_edge.stream.log.chain import event_row
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.deliveries import Deliveries, Progress, remove_old_log_files
from hvq_edge.stream.log.files import chain_files
from hvq_edge.stream.log.head import head_path, read_head, write_head
from hvq_edge.stream.log.reader import RowsAfter, all_rows
from hvq_edge.stream.log.sqlite_file import LogFile
from hvq_edge.stream.log.verification import doubt_of, verify_log
from hvq_edge.stream.sinks.files.retention import RetentionLimits

SMALL_FILES = LogOptions(0.0, file_bytes=1, head_seconds=0.0, reserve_bytes=0)


def cut_off(path: Path) -> None:
    execute(path, "DELETE FROM log WHERE id > 4")


def last_file_removed(path: Path) -> None:
    chain_files(path)[-1].unlink()


def whole_log_removed(path: Path) -> None:
    for file in chain_files(path):
        file.unlink()


def replaced(path: Path) -> None:
    """By another log that is longer, and whole."""
    other = path.with_name("other") / path.name
    written(other, 40).close()
    whole_log_removed(path)
    other.replace(path)


def head_removed(path: Path) -> None:
    head_path(path).unlink()


def head_damaged(path: Path) -> None:
    head_path(path).write_text("{")


def cut_to_its_first_row(path: Path) -> None:
    execute(path, "DELETE FROM log WHERE id > 1")
    head_removed(path)


def cut_behind_what_was_told(path: Path) -> None:
    """And a head of then put back."""
    Deliveries(path).write("webhook", Progress(8))
    write_head(head_path(path), list(all_rows(path))[3])
    cut_off(path)


def all_but_a_damaged_head_removed(path: Path) -> None:
    whole_log_removed(path)
    head_damaged(path)


@pytest.mark.parametrize(
    ("harm", "said", "options"),
    [
        (cut_off, "its end is gone: it once went on to row 9", AT_ONCE),
        (last_file_removed, "it once went on to row", SMALL_FILES),
        (whole_log_removed, "the log is gone: it once went on to row 9", AT_ONCE),
        (replaced, "row 9 is another one: it was written anew", AT_ONCE),
        (head_removed, "its head is gone", AT_ONCE),
        (head_damaged, "its head is gone or damaged", AT_ONCE),
        (cut_to_its_first_row, "its head is gone", AT_ONCE),
        (cut_behind_what_was_told, "its end is gone: a receiver got row 8", AT_ONCE),
        (all_but_a_damaged_head_removed, "its head is gone or damaged", AT_ONCE),
    ],
)
def test_the_next_start_launders_nothing(tmp_path, harm, said, options):
    path = tmp_path / "decisions.sqlite"
    written(path, 6, options).close()
    (first_id, *_) = log_ids(path)
    harm(path)
    head = head_path(path).read_bytes() if head_path(path).exists() else None
    for _ in range(2):
        written(path, 3, options).close()
        found = verify_log(path)
        assert not found.whole, "from then on"
        assert any(said in fault.what for fault in found.faults)
        assert log_ids(path)[-1] != first_id, "ids of rows are never used twice"
        (event,) = [row for row in all_rows(path) if row.kind == "head_mismatch"]
        assert said in json.loads(event.more)["what"], "once"
        kept = json.loads(event.more)["kept"]
        assert (tmp_path / kept).read_bytes() == head if head else kept is None
        assert read_head(head_path(path)).id == found.last_id


def test_a_log_is_doubted_for_what_is_gone_and_not_for_old_files_that_made_room(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 3, SMALL_FILES).close()
    head = read_head(head_path(path))
    *_, last = rows = list(all_rows(path))

    def doubt(row, of=last):
        return doubt_of(path, of, head.model_copy(update={"id": row.id, "hash": row.hash}))

    assert doubt_of(path, last, None) == "its head is gone or damaged"
    assert [doubt(row) for row in rows] == [""] * len(rows)
    assert doubt(last, rows[0]) == f"the log is gone: it once went on to row {last.id}"
    assert doubt(last, rows[1]) == f"its end is gone: it once went on to row {last.id}"
    assert doubt(rows[2]._replace(hash="0" * 64)) == "row 3 is another one: it was written anew"
    files = chain_files(path)
    oldest = next(iter(all_rows(path)))
    files[0].unlink()
    first = next(iter(all_rows(path)))
    assert first.id > oldest.id
    assert doubt(oldest) == "", "its file may have been removed to make room"
    execute(files[-1], f"DELETE FROM log WHERE id = {last.id - 1}")
    assert doubt(rows[-2]) == f"row {last.id - 1} is gone"


def test_a_log_without_its_head_is_not_said_to_be_whole(tmp_path):
    written(tmp_path / "decisions.sqlite", 3).close()
    head_path(tmp_path / "decisions.sqlite").unlink()
    (fault,) = verify_log(tmp_path).faults
    assert "there is no head" in fault.what


def test_a_start_after_a_kill_or_with_another_place_for_the_head_is_no_fault(tmp_path):
    path = tmp_path / "decisions.sqlite"
    first = event_row("file", "", 5.0, {"log": "a", "continues": False})
    write_head(head_path(path), decision_log.chained(first, None))  # and killed before its row
    with pytest.raises(InputError, match="there is no decision log"):
        verify_log(path)
    elsewhere = LogOptions(0.0, head=tmp_path / "audit" / "head", reserve_bytes=0)
    for options in LogOptions(0.0, head_seconds=1e6, reserve_bytes=0), elsewhere, AT_ONCE:
        log = written(path, 3, options)  # the head stays behind
        log._file.close()
        log._lock.release()  # as a kill does
    written(path, 1).close()
    found = verify_log(path)
    assert found.faults == []
    assert found.lost_sessions == 3


def test_a_log_that_is_gone_is_told_of_by_a_head_that_was_kept_elsewhere(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 3).close()
    whole_log_removed(path)
    written(path, 3, LogOptions(0.0, head=tmp_path / "audit" / "head", reserve_bytes=0)).close()
    found = verify_log(path, tmp_path / "audit" / "head")
    assert ["the log is gone: it once went on to row 6" in one.what for one in found.faults] == [
        True
    ]


@pytest.mark.parametrize("more", ["9" * 5000, "[" * 5000, "null", "{}", "[1"])
def test_a_first_row_that_cannot_be_read_is_said(tmp_path, more):
    path = tmp_path / "decisions.sqlite"
    written(path, 1).close()
    execute(path, f"UPDATE log SET more = '{more}' WHERE id = 1")
    with pytest.raises(InputError, match="its first row holds what no inspector writes"):
        written(path, 1)


def test_a_log_that_has_no_decision_yet_is_whole(tmp_path):
    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), AT_ONCE)
    assert verify_log(tmp_path).whole
    log.close()
    assert verify_log(tmp_path).whole


def test_a_head_that_cannot_be_written_leaves_no_row(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 3).close()
    rows = list(all_rows(path))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot write .*head"):
        written(path, 1, LogOptions(0.0, head=tmp_path / "file" / "head", reserve_bytes=0))
    assert list(all_rows(path)) == rows
    written(path, 1).close()
    assert verify_log(path).whole


# What no inspector writes.


def test_an_id_that_leaves_no_room_for_another_is_said(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 1).close()
    execute(path, f"UPDATE log SET id = {2**63 - 1} WHERE id = 4")
    with pytest.raises(InputError, match="its last row holds what no inspector writes"):
        written(path, 1)


def test_a_mismatch_that_is_nested_without_end_is_a_fault_like_any(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 3).close()
    nested = "[" * 200_000
    execute(path, f"UPDATE log SET kind = 'head_mismatch', more = '{nested}' WHERE id = 3")
    assert any("not as it was written" in fault.what for fault in verify_log(path).faults)


# What stands beside a file.


def test_a_copy_of_an_older_file_alone_has_all_its_rows(tmp_path):
    """A receiver still reads from it when the next one begins."""
    path = tmp_path / "decisions.sqlite"
    log = DecisionLog(path, Session(), LogOptions(0.0, file_bytes=30_000, reserve_bytes=0))
    reader = RowsAfter(path, ["pass"])
    reader.read(0, 1)
    index = 0
    while len(chain_files(path)) == 1:
        log.write(*made(index))
        log.tick()
        index += 1
    copy = tmp_path / "copy" / path.name
    copy.parent.mkdir()
    shutil.copy(path, copy)
    assert sum(row.verdict is not None for row in all_rows(copy)) == index
    reader.close()
    log.close()


def test_old_files_are_counted_and_removed_with_what_stands_beside_them(tmp_path):
    path = tmp_path / "decisions.sqlite"
    written(path, 3, SMALL_FILES).close()
    oldest, *_, newest = chain_files(path)
    beside = [oldest.with_name(oldest.name + end) for end in ("-wal", "-shm")]
    reader = RowsAfter(path, ["pass"])
    reader.read(0, 1)
    writer = LogFile(oldest)
    before = sum(file.stat().st_size for file in chain_files(path))
    assert all(other.exists() for other in beside)
    removed = remove_old_log_files(path, RetentionLimits(bytes=before - oldest.stat().st_size))
    writer.close()
    reader.close()
    assert removed == [oldest]
    assert not any(other.exists() for other in beside)
    assert newest.exists()


def test_a_file_of_a_clock_that_was_ahead_does_not_keep_the_later_ones(tmp_path, monkeypatch):
    path, now = tmp_path / "decisions.sqlite", 1.8e9
    times = iter([now + 1e8, now - 5000, now - 4000, now - 100])
    for _ in range(4):
        at = next(times)
        monkeypatch.setattr(decision_log.time, "time", lambda at=at: at)
        log = DecisionLog(path, Session(), SMALL_FILES)
        decision, frame = made(0)
        object.__setattr__(decision, "time", at)
        log.write(decision, frame)
        log.tick()
        log.close()
    monkeypatch.undo()
    files = chain_files(path)
    removed = remove_old_log_files(path, RetentionLimits(seconds=1000.0), now=now)
    assert removed == files[: len(removed)]
    assert len(removed) == 3, "one file a session is full; the last session's are young"
