"""The head of a log: where it is kept, and what it never replaces."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from helpers.decisions import execute, log_ids, written

from hvq_edge.errors import InputError
from hvq_edge.stream.log.chain import chained, event_row
from hvq_edge.stream.log.decision_log import DecisionLog, LogOptions, Session
from hvq_edge.stream.log.head import (
    check_head_place,
    head_path,
    keep_aside,
    read_head,
    write_head,
)
from hvq_edge.stream.log.verification import verify_log


def kept_at(head: Path) -> LogOptions:
    return LogOptions(0.0, head=head, head_seconds=0.0, reserve_bytes=0)


OF_THE_RECORDING = "another file or folder of the recording has that name."


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("folder", "that is a folder."),
        ("pipe", "that is a pipe or a device."),
        ("notes.txt", "a file of something else stands there."),
        ("out/decisions.sqlite", OF_THE_RECORDING),
        ("out/decisions.000002.sqlite", OF_THE_RECORDING),
        ("out/decisions.sqlite-wal", OF_THE_RECORDING),
        ("out/.decisions.sqlite.lock", OF_THE_RECORDING),
        ("out/decisions.jsonl", OF_THE_RECORDING),
        ("out/rejects", OF_THE_RECORDING),
        ("/", "that is a folder."),
        ("nul\0", None),
    ],
)
@pytest.mark.parametrize("begun", [False, True], ids=["new log", "log"])
def test_a_head_replaces_nothing_but_a_head(tmp_path, name, why, begun):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "notes.txt").write_text("mine")
    path = tmp_path / "out" / "decisions.sqlite"
    if begun:
        written(path, 3).close()
    before = sorted(tmp_path.rglob("*"))
    head = tmp_path / name
    with pytest.raises(InputError) as refused:
        DecisionLog(path, Session(), kept_at(head))
    written_there = f"the head of the log cannot be written to {head}: {why}"
    assert refused.value.cause == (written_there if why else f"{head} is no path of a file.")
    assert refused.value.next_step == (
        "give another place: head in [sinks.log] names a file that nothing else writes"
    )
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_a_head_that_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    path = tmp_path / "decisions.sqlite"
    written(path, 3).close()
    head_path(path).unlink()
    make(head_path(path))
    with pytest.raises(InputError, match="that is a"):
        written(path, 1)
    (fault,) = verify_log(path).faults
    assert "cannot read the head" in fault.what
    with pytest.raises(InputError) as refused:
        read_head(head_path(path))
    why = "it is a pipe or a device, not a plain file" if make is os.mkfifo else "Is a directory"
    assert refused.value.cause == f"cannot read the head of the log, {head_path(path)}: {why}."
    assert refused.value.next_step == "name another copy of it with --head"


def test_a_damaged_head_elsewhere_is_told_of_by_the_log(tmp_path):
    path, head = tmp_path / "decisions.sqlite", tmp_path / "audit.head"
    written(path, 3, kept_at(head)).close()
    for rest in (head.read_bytes()[:20], b"\0" * 50):
        head.write_bytes(rest)
        written(path, 1, kept_at(head)).close()
    faults = [fault.what for fault in verify_log(path, head).faults]
    assert ["head is gone or damaged" in what for what in faults] == [True, True]


@pytest.mark.parametrize("text", ["X", "{}", '{"former": 1}', "0\n", '"'])
def test_a_short_file_of_something_else_is_no_damaged_head(tmp_path, text):
    (tmp_path / "mine").write_text(text)
    with pytest.raises(InputError, match="a file of something else stands there"):
        DecisionLog(tmp_path / "decisions.sqlite", Session(), kept_at(tmp_path / "mine"))
    assert (tmp_path / "mine").read_text() == text


def test_heads_that_do_not_fit_are_kept_one_beside_the_other(tmp_path):
    head = tmp_path / "log.head"
    for number in (1, 2, 3):
        assert keep_aside(head) == tmp_path / f"log.head.{number}"
        keep_aside(head).touch()
    (tmp_path / "log.head.2").unlink()
    assert keep_aside(head) == tmp_path / "log.head.2", "the first that is free"


def test_a_new_log_leads_to_a_head_elsewhere_from_the_first_run_on(tmp_path):
    path, head = tmp_path / "log" / "decisions.sqlite", tmp_path / "kept.head"
    written(path, 3, kept_at(head)).close()
    assert head_path(path).readlink() == head
    assert verify_log(path).head_id == verify_log(path).last_id


def test_a_log_leads_to_the_head_that_is_kept_elsewhere(tmp_path):
    """One that stayed beside it from before would vouch for a log that was cut off since."""
    path = tmp_path / "decisions.sqlite"
    written(path, 3).close()
    for place in ("one", "other"):
        written(path, 3, kept_at(tmp_path / place / "head")).close()
        assert verify_log(path).whole
    execute(path, "DELETE FROM log WHERE id > 8")
    assert any("the end is cut off" in fault.what for fault in verify_log(path).faults)


def test_two_lines_do_not_share_a_head(tmp_path):
    head, first, second = (tmp_path / name for name in ("head", "a", "b"))
    written(first / "decisions.sqlite", 3, kept_at(head)).close()
    kept = head.read_bytes()
    for _ in range(2):  # a new log, then one that has rows
        with pytest.raises(InputError) as refused:
            written(second / "decisions.sqlite", 1, kept_at(head))
        assert refused.value.cause == (
            f"the head of the log cannot be written to {head}: that is the head of another log, "
            f"{first / 'decisions.sqlite'}."
        )
        assert refused.value.next_step.startswith("give another place: head in [sinks.log]")
        written(second / "decisions.sqlite", 1).close()
    assert head.read_bytes() == kept
    assert verify_log(second).whole
    first.rename(tmp_path / "moved")
    written(tmp_path / "moved" / "decisions.sqlite", 1, kept_at(head)).close()
    assert verify_log(tmp_path / "moved", head).whole, "it is the same log elsewhere"


def test_a_head_of_an_earlier_version_is_read(tmp_path):
    path, head = tmp_path / "decisions.sqlite", tmp_path / "head"
    written(path, 3, kept_at(head)).close()
    fields = json.loads(head.read_text())
    assert fields.pop("log") in log_ids(path)
    assert fields.pop("file") == str(path)
    head.write_text(json.dumps(fields))
    assert verify_log(path, head).whole
    written(path, 3, kept_at(head)).close()
    assert verify_log(path, head).whole


@pytest.mark.parametrize("lacks", ["log", "file"])
def test_a_head_that_does_not_say_whose_it_is_gives_way(tmp_path, lacks):
    """An earlier version wrote it: nothing tells that it is another log's."""
    head, other = tmp_path / "head", tmp_path / "other" / "decisions.sqlite"
    written(other, 3, kept_at(head)).close()
    fields = json.loads(head.read_text())
    del fields[lacks]
    head.write_text(json.dumps(fields))
    check_head_place(tmp_path / "decisions.sqlite", head)


def test_a_head_holds_what_it_is_told_and_no_empty_fields(tmp_path):
    row = chained(event_row("file", "", 5.0, {}), None)
    write_head(tmp_path / "head", row)
    text = (tmp_path / "head").read_text()
    assert json.loads(text) == {"format": 1, "id": 1, "hash": row.hash, "time": 5.0}
    assert text.endswith("}\n")
    write_head(tmp_path / "head", row, "a", tmp_path / "decisions.000002.sqlite")
    fields = json.loads((tmp_path / "head").read_text())
    assert (fields["log"], fields["file"]) == ("a", str(tmp_path / "decisions.sqlite"))
