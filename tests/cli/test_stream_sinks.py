"""``hvq-edge log``: what it prints and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.commands import exit_code
from helpers.decisions import AT_ONCE, made, written
from rich.console import Console

from hvq_edge.cli.log import _table, export
from hvq_edge.stream.log.decision_log import DecisionLog, Session
from hvq_edge.stream.log.reader import last_rows, open_for_reading
from hvq_edge.stream.log.sqlite_file import LogFile


@pytest.fixture
def log(tmp_path):
    written(tmp_path / "decisions.sqlite", 6, version="1").close()
    return tmp_path


def tampered(folder, statement: str) -> None:
    with closing(sqlite3.connect(folder / "decisions.sqlite")) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_whole_log(log, capsys):
    assert exit_code("log", "verify", str(log)) == 0
    printed = capsys.readouterr().out
    assert "9 rows in 1 file: 6 decisions in 1 session, 0 of them" in printed
    assert "Whole: rows 1 to 9" in printed


@pytest.mark.parametrize(
    ("statement", "said", "first"),
    [
        ("UPDATE log SET verdict = 'pass' WHERE id = 4", "row 4 was changed", 4),
        ("DELETE FROM log WHERE id IN (4, 5)", "rows 4 to 5 are missing", 4),
        ("DELETE FROM log WHERE id = 9", "row 9 is missing: the end is cut off", 9),
    ],
)
def test_a_tampered_log_is_a_failed_gate(log, capsys, statement, said, first):
    tampered(log, statement)
    assert exit_code("log", "verify", str(log / "decisions.sqlite")) == 1
    printed = capsys.readouterr()
    assert said in printed.out
    assert (
        f"Error: the log is not as it was written: 1 fault, the first at row {first}."
        in printed.err
    )
    assert "keep all files as they are; take the rows from a backup" in printed.err


def test_verify_for_machines(log, capsys):
    tampered(log, "UPDATE log SET score = 0 WHERE id = 3")
    assert exit_code("log", "verify", str(log), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["whole"] is False
    assert [(fault["file"], fault["row"]) for fault in found["faults"]] == [("decisions.sqlite", 3)]
    assert (found["rows"], found["head_id"]) == (9, 9)


def test_show(log, capsys):
    assert exit_code("log", "show", str(log), "--last", "2", "--verdict", "reject") == 0
    printed = capsys.readouterr().out
    assert printed.count("reject") == 2
    assert "2023-11-14 UTC" in printed
    assert "22:13:24.500" in printed
    assert exit_code("log", "show", str(log), "--last", "1") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "session_end counts: no_decision 2, pass 2, reject 2" in said
    assert exit_code("log", "show", str(log), "--last", "1", "--json") == 0
    last = json.loads(capsys.readouterr().out)
    assert (last["id"], last["kind"], last["counts"]["reject"]) == (9, "session_end", 2)
    assert exit_code("log", "show", str(log), "--verdict", "perhaps") == 2
    assert "--verdict perhaps" in capsys.readouterr().err


def test_an_event_that_says_much_is_cut(log, capsys):
    tampered(log, f"""UPDATE log SET more = '{{"a": "{"x" * 9000}"}}' WHERE id = 9""")
    assert exit_code("log", "show", str(log), "--last", "1") == 0
    printed = capsys.readouterr().out
    assert len("".join(printed.split())) < 500
    assert "…" in printed


@pytest.mark.parametrize("command", [["verify"], ["show"], ["export"]])
def test_reading_leaves_an_archive_as_it_was(log, command):
    def state() -> dict[str, tuple[bytes, int]]:
        return {
            path.name: (path.read_bytes(), path.stat().st_mtime_ns)
            for path in log.iterdir()
            if path.is_file()
        }

    before = state()
    assert "decisions.sqlite-wal" not in before
    assert exit_code("log", *command, str(log)) == 0
    assert state() == before


def test_a_reader_takes_nothing_from_a_writer(tmp_path):
    """The writer has closed no file: what stands beside the log is its own."""
    path = tmp_path / "decisions.sqlite"
    log = written(path, 6, version="1")
    log.close()
    with closing(open_for_reading(path)), closing(LogFile(path)) as writer:
        rows = last_rows(path, 1)
        writer.append([rows[0]._replace(id=rows[0].id + 1)])
        assert last_rows(path, 1)[0].id == rows[0].id + 1
        assert exit_code("log", "show", str(path)) == 0
        assert path.with_name("decisions.sqlite-wal").stat().st_size > 0
    assert len(last_rows(path, 99)) == rows[0].id + 1


def test_what_a_killed_writer_left_is_read_and_kept(log, tmp_path_factory):
    path = log / "decisions.sqlite"
    copy = tmp_path_factory.mktemp("killed") / path.name
    with closing(LogFile(path)) as writer:
        rows = last_rows(path, 1)
        writer.append([rows[0]._replace(id=rows[0].id + 1)])
        for name in (path.name, f"{path.name}-wal"):
            (copy.parent / name).write_bytes((log / name).read_bytes())
    before = copy.read_bytes(), copy.with_name(f"{copy.name}-wal").read_bytes()
    assert last_rows(copy, 1)[0].id == rows[0].id + 1
    assert (copy.read_bytes(), copy.with_name(f"{copy.name}-wal").read_bytes()) == before


def test_a_long_reason_wraps_and_a_time_does_not(log):
    (row,) = last_rows(log, 1, ["reject"])
    reason = "the image is darker (12.3) than those of the training: look at the lamp first"
    rows = [row._replace(reason=reason), row._replace(reason=reason, time=row.time + 86400)]
    for shown, clock in ((rows[:1], "22:13:24.500"), (rows, "2023-11-15 22:13:24")):
        console = Console(width=100, record=True, file=io.StringIO())
        console.print(_table(shown))
        text = console.export_text()
        assert clock in text
        assert " ".join(text.split()).count("darker") == len(shown)
        assert text.count("first") == len(shown), "the reason's end is cut off"


def test_export_of_nothing_prints_nothing(tmp_path, capsys):
    assert exit_code("log", "export", str(tmp_path / "no.sqlite")) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "there is no decision log" in printed.err


def test_a_name_is_no_formula_in_a_spreadsheet(tmp_path, capsys):
    log = DecisionLog(tmp_path / "decisions.sqlite", Session(), AT_ONCE)
    for index, part in enumerate(("=1+1", "\t=1", "SN-1", None)):
        decision, frame = made(index, name="@a.png")
        log.write(replace(decision, part=part), frame)
    log.close()
    assert exit_code("log", "export", str(tmp_path)) == 0
    rows = [row for row in csv.DictReader(capsys.readouterr().out.split("\n")) if row["verdict"]]
    assert [row["part"] for row in rows] == ["'=1+1", "'\t=1", "SN-1", ""]
    assert {row["image"] for row in rows} == {"'@a.png"}
    assert json.loads(rows[0]["more"])["part"] == "=1+1"
    assert exit_code("log", "show", str(tmp_path), "--part", " ") == 2
    assert "1 to 200 characters" in capsys.readouterr().err


def test_export(log, capsys, tmp_path):
    out = tmp_path / "new" / "all.csv"
    assert exit_code("log", "export", str(log), "--csv", str(out)) == 0
    assert "9 rows" in capsys.readouterr().err
    with out.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["verdict"] for row in rows[2:5]] == ["pass", "reject", "no_decision"]
    assert rows[3]["score"] == "6.0"
    assert json.loads(rows[1]["more"]) == {"version": "1"}
    assert exit_code("log", "export", str(log)) == 0
    assert capsys.readouterr().out == out.read_text(encoding="utf-8")
    assert exit_code("log", "export", str(log), "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["id"] for line in lines] == list(range(1, 10))


def test_a_place_that_cannot_be_written_is_no_damage_of_the_log(log, capsys, monkeypatch):
    monkeypatch.chdir(log)
    for place, why in ((".", "there is a folder of that name"), (os.devnull, "a device")):
        assert exit_code("log", "export", str(log), "--csv", place) == 2
        said = capsys.readouterr().err
        assert f"cannot write {place}: " in said
        assert why in said
        assert "damaged" not in said
    assert Path(os.devnull).is_char_device()
    with pytest.raises(ValueError, match="null byte"):  # what else goes wrong with the place
        export(log, Path("a\0.csv"), None, as_json=False)
