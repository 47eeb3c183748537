"""What a benchmark prints becomes data: tables, the machine, the versions, the commit."""

from __future__ import annotations

import json
import re
import sys

import pytest

from benchmarks import as_json
from hvq_edge.runtime.cpu.processor import processor_name


def test_a_benchmark_is_kept_with_what_its_numbers_depend_on(small_bundle, tmp_path, capsys):
    out = tmp_path / "layers.json"
    before = list(sys.argv)
    options = ("--threads", "1", "--openings", "1")
    assert as_json.main([str(out), "speed.layer_times", str(small_bundle), *options]) == 0
    assert sys.argv == before
    kept = json.loads(out.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert kept["printed"] == printed.splitlines()
    (table,) = kept["tables"]
    assert table["headings"] == ["ms", "fp32", "int8"]
    *groups, (name, *sums) = table["rows"]
    assert name == "together"
    for column, whole in enumerate(sums, start=1):
        parts = [float(row[column]) for row in groups]
        assert sum(parts) == pytest.approx(float(whole), abs=0.01 * len(parts))
        assert float(whole) > 0
    assert kept["arguments"] == [str(small_bundle), *options]
    assert kept["machine"] == processor_name()
    assert kept["versions"]["openvino"]
    assert kept["commit"] is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", kept["commit"])


def test_what_failed_leaves_no_file(tmp_path, capsys):
    out = tmp_path / "layers.json"
    with pytest.raises(SystemExit) as ended:
        as_json.main([str(out), "speed.layer_times", str(tmp_path / "none")])
    assert ended.value.code == 2
    assert not out.exists()
    assert "none" in capsys.readouterr().err


def test_tables_are_found_between_what_is_said():
    text = "said\n\n| a | b |\n| :- | -: |\n| x y | 1 (0 .. 2) |\nmore\n| c |\n| :- |\n"
    assert as_json.tables_of(text) == [
        {"headings": ["a", "b"], "rows": [["x y", "1 (0 .. 2)"]]},
        {"headings": ["c"], "rows": []},
    ]
    assert as_json.tables_of("nothing | here") == []


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert as_json.commit() is None
