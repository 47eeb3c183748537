"""Measured times are remembered, and never in the way of opening an engine."""

from __future__ import annotations

import json
import os
import stat

import pytest

pytest.importorskip("onnx")
from helpers.engine_bench import ALL, ORT8, ORT32, OV8, OV32, both, cache, plant  # noqa: F401  # fixtures

from hvq_edge.runtime.choice import choose_graph as rooms
from hvq_edge.runtime.choice.measured_choice import (
    Measurement,
    key_for,
    remember,
    remembered,
)
from hvq_edge.runtime.cpu.processor import usable_cpus
from hvq_edge.runtime.open_engine import choose

KEY = key_for({"fp32": "a" * 64, "int8": "b" * 64}, ("openvino", "onnxruntime"), None)
TIMES = Measurement({OV32: 9.8, ORT32: 14.2, OV8: 6.1, ORT8: 20.0})


def test_times_are_remembered_in_a_readable_file(cache):
    assert remembered(KEY) is None
    remember(KEY, TIMES)
    assert remembered(KEY) == TIMES
    (path,) = cache.iterdir()
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["milliseconds"]["openvino"] == {"fp32": 9.8, "int8": 6.1}
    assert content["key"]["models"]["int8"] == "b" * 64
    assert content["key"]["versions"].keys() == {"hvq_edge", "openvino", "onnxruntime"}
    assert tuple(remembered(KEY).milliseconds) == ALL, "the order of preference is lost"


@pytest.mark.parametrize(
    "change",
    [
        {"models": {"fp32": "a" * 64, "int8": "c" * 64}},
        {"models": {"fp32": "a" * 64}},
        {"versions": {**KEY.versions, "openvino": "2099.1"}},
        {"versions": {"hvq_edge": KEY.versions["hvq_edge"], "onnxruntime": "1"}},
        {"processor": "another one"},
        {"cpus": KEY.cpus + 1},
        {"threads": 2},
    ],
    ids=str,
)
def test_times_hold_for_their_key_only(cache, change):
    remember(KEY, TIMES)
    assert remembered(KEY.model_copy(update=change)) is None


@pytest.mark.parametrize(
    "corrupt",
    [
        lambda text: text[:0],
        lambda text: text[: len(text) // 2],
        lambda text: f"[{text}]",
        lambda text: text.replace("9.8", "NaN"),
        lambda text: text.replace("9.8", "-1"),
        lambda text: text.replace("9.8", '"fast"'),
        lambda text: text.replace("engine-times/2", "engine-times/9"),
        lambda text: text.replace('"a', '"d'),
        lambda text: text.replace('"fp32": 9.8,', ""),
        lambda text: "\udcff" + text,
    ],
)
def test_a_corrupt_file_is_as_good_as_none(cache, corrupt):
    remember(KEY, TIMES)
    (path,) = cache.iterdir()
    text = path.read_text(encoding="utf-8")
    changed = corrupt(text)
    assert changed != text
    path.write_text(changed, encoding="utf-8", errors="surrogateescape")
    assert remembered(KEY) is None
    remember(KEY, TIMES)
    assert remembered(KEY) == TIMES


def test_a_measurement_with_failures_is_not_kept(cache):
    """A library that is repaired may keep its version."""
    remember(KEY, Measurement({OV32: 1.0}, {ORT32: RuntimeError("broken")}))
    assert not cache.exists()


@pytest.mark.parametrize(("load", "kept"), [(1.4, True), (1.6, False)])
def test_times_of_a_busy_machine_serve_once(plant, both, cache, monkeypatch, load, kept):
    monkeypatch.setattr(rooms, "load_average", lambda: load * usable_cpus())
    bench = plant(delays=dict.fromkeys(ALL, 0.01))
    assert choose(both) == choose(both)
    assert cache.exists() == kept
    assert len(bench.opened) == (4 if kept else 8)


def test_a_folder_in_the_way_of_the_file(cache):
    remember(KEY, TIMES)
    (path,) = cache.iterdir()
    path.unlink()
    path.mkdir()
    assert remembered(KEY) is None
    remember(KEY, TIMES)


def test_a_file_in_the_way_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    remember(KEY, TIMES)
    assert remembered(KEY) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fixed"))
    (tmp_path / "fixed").mkdir()
    (tmp_path / "fixed").chmod(stat.S_IRUSR | stat.S_IXUSR)
    remember(KEY, TIMES)
    assert remembered(KEY) is None


def test_no_home_at_all(monkeypatch):
    """A container whose user has no entry in /etc/passwd."""
    monkeypatch.setattr(
        "hvq_edge.runtime.choice.measured_choice.default_cache",
        lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")),
    )
    remember(KEY, TIMES)
    assert remembered(KEY) is None


def test_the_version_of_a_module_from_another_package(monkeypatch):
    """ONNX Runtime's builds are packages of other names, all with the module onnxruntime."""
    from importlib import metadata

    from hvq_edge.runtime.choice import measured_choice

    def version(name):
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return "1.18.0"

    monkeypatch.setattr(measured_choice, "version", version)
    monkeypatch.setattr(
        measured_choice, "packages_distributions", lambda: {"onnxruntime": ["onnxruntime-gpu"]}
    )
    key = key_for({}, ("openvino", "onnxruntime"), None)
    assert key.versions["onnxruntime"] == "onnxruntime-gpu 1.18.0"
