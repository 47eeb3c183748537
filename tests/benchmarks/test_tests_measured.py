"""What says how good the tests are: shares of lines that run, shares of faults that are noticed."""

import sys

import pytest
from helpers.paths import ROOT

from benchmarks import coverage_by_room, mutation
from benchmarks.coverage_by_room import lines_by_room
from benchmarks.coverage_by_room import table as table_of_lines
from benchmarks.mutation import ROOMS, sample, table

MADE = [f"hvq_edge.verdict.threshold.x_bound__mutmut_{i}" for i in range(40)]


def test_lines_are_counted_by_folder():
    files = {
        "export/a.py": {"num_statements": 10, "covered_lines": 9},
        "export/b.py": {"num_statements": 10, "covered_lines": 10},
        "export/fold/c.py": {"num_statements": 5, "covered_lines": 0},
        "export/fold/__init__.py": {"num_statements": 0, "covered_lines": 0},
        "calibration/__init__.py": {"num_statements": 0, "covered_lines": 0},
    }
    rooms = lines_by_room(files)
    assert rooms == {"export": (20, 19), "export/fold": (5, 0)}
    first, *_, last = table_of_lines(rooms).splitlines()[2:]
    assert first.split() == ["|", "export", "|", "20", "|", "1", "|", "95.0", "%", "|"]
    assert last.split() == ["|", "all", "|", "25", "|", "6", "|", "76.0", "%", "|"]


@pytest.mark.parametrize("least", ["nan", "inf", "-1", "101", "much"])
def test_a_least_share_that_is_none_is_refused(least, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["coverage_by_room", "--least", least])
    monkeypatch.setattr(coverage_by_room, "_report", lambda: pytest.fail("it was taken"))
    with pytest.raises(SystemExit) as stop:
        coverage_by_room.main()
    assert stop.value.code == 2


def test_a_sample_is_the_same_every_time_and_the_start_of_a_larger_one():
    few, more = sample(MADE, "verdict", 5), sample(MADE, "verdict", 20)
    assert more[:5] == few
    assert set(more) < set(MADE)
    assert sorted(sample(MADE, "verdict", 0)) == sorted(MADE)
    assert sample(MADE, "stream/log", 5) == []


def test_what_is_not_noticed_lowers_the_share():
    outcomes = dict.fromkeys(MADE[:8], "killed") | {MADE[8]: "survived", MADE[9]: "timeout"}
    (row,) = table(MADE, outcomes).splitlines()[2:]
    # Wilson's interval of 9 in 10.
    cells = "| verdict | 40 | 10 | 9 | 1 | 90 % (60 to 98 %) |"
    assert row.split() == cells.split()


def test_the_rooms_of_mutants_are_folders():
    for prefix in ROOMS.values():
        folder = prefix.removesuffix(".").replace(".", "/")
        assert (ROOT / folder).is_dir() or (ROOT / folder.removeprefix("hvq_edge/")).is_dir()


@pytest.mark.parametrize("arguments", [["--sample", "-1"], ["--workers", "0"]])
def test_a_sample_that_is_none_is_refused(arguments, monkeypatch):
    """Of all mutants but one, or by nobody: nothing was made for it."""
    monkeypatch.setattr(sys, "argv", ["mutation", *arguments])
    monkeypatch.setattr(mutation, "_outcomes", lambda: pytest.fail("mutants were made"))
    with pytest.raises(SystemExit) as stop:
        mutation.main()
    assert stop.value.code == 2
