"""The fastest engine is found by timing, remembered, and never in the way of opening one."""

from __future__ import annotations

import json
import os
import stat
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("onnx")
from graphs import CATEGORIES, SIDE, frames, save_bundle

from hvq_edge.bundle import open_bundle, record_of, write_manifest
from hvq_edge.errors import BundleError, MissingCapability, SettingsError
from hvq_edge.runtime import choose_graph as rooms
from hvq_edge.runtime import open_candidate
from hvq_edge.runtime.engine import EngineInfo
from hvq_edge.runtime.measured_choice import (
    GRAPH_BACKENDS,
    SAME_SPEED,
    Candidate,
    Measurement,
    key_for,
    measure,
    remember,
    remembered,
    usable_cpus,
)
from hvq_edge.runtime.open_engine import choose, open_engine

OV32, OV8 = Candidate("openvino", "fp32"), Candidate("openvino", "int8")
ORT32, ORT8 = Candidate("onnxruntime", "fp32"), Candidate("onnxruntime", "int8")
ALL = (OV32, ORT32, OV8, ORT8)


@dataclass
class FakeEngine:
    """An engine that takes as long as was planted, on the bench's clock."""

    bench: Bench
    candidate: Candidate
    mode: str
    open: bool = True

    @property
    def info(self):
        return EngineInfo(*self.candidate, "a fake", SIDE, CATEGORIES, self.mode)

    def run(self, frames, category=None):
        assert self.open
        assert (frames.shape, frames.dtype) == ((1, SIDE, SIDE, 3), np.uint8)
        assert (category is not None) == (self.mode == "input")
        self.bench.runs.append(self.candidate)
        delay = self.bench.delays[self.candidate]
        if isinstance(delay, Exception):
            raise delay
        self.bench.now += delay(len(self.bench.runs)) if callable(delay) else delay

    def close(self):
        self.open = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@dataclass
class Bench:
    """Fake engines and the clock they move. Delays: seconds, a function of the run's number, or
    an error that running raises."""

    delays: dict
    refuse: dict = field(default_factory=dict)
    mode: str = "one"
    now: float = 100.0
    runs: list = field(default_factory=list)
    opened: list = field(default_factory=list)

    def open(self, candidate):
        if candidate in self.refuse:
            raise self.refuse[candidate]
        self.opened.append(FakeEngine(self, candidate, self.mode))
        return self.opened[-1]

    def measure(self, candidates=None, **options):
        chosen = tuple(self.delays) if candidates is None else candidates
        return measure(chosen, self.open, clock=lambda: self.now, **options)


# --- measuring -----------------------------------------------------------------------------------


@pytest.mark.parametrize("winner", ALL)
def test_the_fastest_is_chosen_and_all_are_closed(winner):
    bench = Bench({one: 0.004 if one == winner else 0.010 for one in ALL})
    found = bench.measure()
    assert found.fastest() == winner
    assert found.milliseconds[winner] == pytest.approx(4)
    assert tuple(found.milliseconds) == ALL
    assert len(bench.opened) == 4
    assert not any(engine.open for engine in bench.opened)


def test_rounds_are_interleaved():
    """Both are timed before either is timed again: a busy moment must not hit one alone."""
    bench = Bench({OV32: 0.010, ORT32: 0.011})
    bench.measure()
    switches = sum(a != b for a, b in zip(bench.runs, bench.runs[1:], strict=False))
    assert switches >= 8
    assert bench.runs.count(OV32) == bench.runs.count(ORT32)


def test_a_clearly_slower_one_is_dropped_early():
    bench = Bench({OV32: 0.010, ORT32: 0.011, ORT8: 0.040})
    found = bench.measure()
    assert bench.runs.count(ORT8) < bench.runs.count(OV32) / 2
    assert found.milliseconds[ORT8] == pytest.approx(40)


def test_one_disturbance_puts_nobody_out():
    """The machine is busy in the second timed run of the faster engine."""
    hits = iter(range(100))
    bench = Bench({OV32: lambda _: 0.200 if next(hits) == 4 else 0.006, ORT32: 0.008})
    assert bench.measure().fastest() == OV32
    assert bench.runs.count(OV32) > 10


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.3])
def test_the_time_limit_holds(seconds):
    bench = Bench(dict.fromkeys(ALL, seconds))
    bench.measure(time_limit=0.5)
    warm_up, round_ = 2 * 4 * seconds, 3 * 4 * seconds
    assert bench.now - 100 <= warm_up + max(4 * 0.5, round_) + 1e-9
    assert all(bench.runs.count(one) >= 5 for one in ALL)


def test_a_graph_with_category_input_is_given_one():
    assert Bench({OV32: 0.01}, mode="input").measure().fastest() == OV32


@pytest.mark.parametrize("when", ["opening", "running"])
def test_one_that_fails_is_left_out_and_named(when):
    error = BundleError("OpenVINO cannot load it.\nmore", next_step="export again")
    if when == "opening":
        bench = Bench(dict.fromkeys(ALL, 0.01), refuse={OV32: error})
    else:
        bench = Bench({**dict.fromkeys(ALL, 0.01), OV32: error})
    found = bench.measure()
    assert found.fastest() == ORT32
    assert str(found).endswith("; fp32 on openvino failed: OpenVINO cannot load it")
    assert not any(engine.open for engine in bench.opened)


def test_an_error_of_any_library_is_a_failure():
    bench = Bench({OV32: 0.01, ORT32: ZeroDivisionError()})
    assert str(bench.measure()).endswith("; fp32 on onnxruntime failed: ZeroDivisionError")


def test_when_all_fail_the_first_error_is_raised():
    first = MissingCapability("OpenVINO cannot be imported.")
    bench = Bench({OV32: 0, ORT32: RuntimeError("second")}, refuse={OV32: first})
    with pytest.raises(MissingCapability) as caught:
        bench.measure()
    assert caught.value is first


def test_ctrl_c_is_no_failure_of_an_engine():
    bench = Bench({OV32: 0.01}, refuse={OV32: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        bench.measure()


@given(st.lists(st.floats(0.1, 1000), min_size=1, max_size=4))
def test_nobody_beats_the_choice_by_more_than_the_margin(times):
    found = Measurement(dict(zip(ALL, times, strict=False)))
    chosen = found.fastest()
    assert found.milliseconds[chosen] <= SAME_SPEED * min(times)
    before = list(found.milliseconds)[: list(found.milliseconds).index(chosen)]
    assert all(found.milliseconds[one] > SAME_SPEED * min(times) for one in before)


def test_the_sentence_names_the_fastest_first():
    assert str(Measurement({OV32: 9.84, ORT32: 14.2, OV8: 6.06})) == (
        "int8 on openvino: 6.1 ms a picture, fp32 on openvino 9.8, fp32 on onnxruntime 14.2 "
        "(measured on this machine)"
    )


# --- remembering ---------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/hvq-edge/engine-times"


KEY = key_for({"fp32": "a" * 64, "int8": "b" * 64}, GRAPH_BACKENDS, None)
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
        lambda text: text.replace("engine-times/1", "engine-times/9"),
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
        "hvq_edge.runtime.measured_choice.default_cache",
        lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory.")),
    )
    remember(KEY, TIMES)
    assert remembered(KEY) is None


def test_the_version_of_a_module_from_another_package(monkeypatch):
    """ONNX Runtime's builds are packages of other names, all with the module onnxruntime."""
    from importlib import metadata

    from hvq_edge.runtime import measured_choice

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


# --- choosing for a bundle -----------------------------------------------------------------------


@pytest.fixture
def plant(cache, monkeypatch):
    """Put fake engines in the place of real ones; both backends are installed."""

    def put(**options):
        bench = Bench(**options)
        monkeypatch.setattr(rooms, "find_spec", lambda _: object())
        monkeypatch.setattr(
            open_candidate, "open_graph", lambda _, candidate, *__: bench.open(candidate)
        )
        monkeypatch.setattr(
            rooms, "measure", lambda *args, **kw: measure(*args, **kw, clock=lambda: bench.now)
        )
        return bench

    return put


@pytest.fixture
def both(tmp_path):
    return save_bundle(tmp_path / "b", precisions=("fp32", "int8"))


def test_int8_is_taken_where_it_is_faster(plant, both):
    plant(delays={OV32: 0.0098, ORT32: 0.0142, OV8: 0.0061, ORT8: 0.0201})
    choice = choose(both)
    assert (choice.backend, choice.precision) == ("openvino", "int8")
    assert choice.reason == (
        "int8: not verified yet: run hvq-edge verify; int8 on openvino: 6.1 ms a picture, "
        "fp32 on openvino 9.8, fp32 on onnxruntime 14.2, int8 on onnxruntime 20.1 "
        "(measured on this machine)"
    )


@pytest.mark.parametrize(
    ("int8", "why"),
    [(0.0120, "fp32: int8 is no faster here;"), (0.0097, "fp32: int8 is less than 5 % faster")],
)
def test_int8_is_not_taken_where_it_gains_nothing(plant, both, int8, why):
    plant(delays={OV32: 0.0098, ORT32: 0.0142, OV8: int8, ORT8: 0.0201})
    choice = choose(both)
    assert (choice.backend, choice.precision) == ("openvino", "fp32")
    assert choice.reason.startswith(why)
    assert f"int8 on openvino{':' if int8 < 0.0098 else ''} {1e3 * int8:.1f}" in choice.reason


def test_int8_that_verify_failed_is_not_even_opened(plant, both):
    (both.path / "verify.json").write_text('{"precisions": {"int8": {"passed": false}}}')
    bench = plant(delays={OV32: 0.02, ORT32: 0.01, OV8: 0.001, ORT8: 0.001})
    choice = choose(both)
    assert (choice.backend, choice.precision) == ("onnxruntime", "fp32")
    assert choice.reason.startswith("fp32: hvq-edge verify did not pass int8; fp32 on onnxruntime")
    assert {engine.candidate for engine in bench.opened} == {OV32, ORT32}


def test_an_engine_that_fails_leaves_the_choice_to_the_others(plant, both):
    error = BundleError("no such instruction.")
    plant(delays=dict.fromkeys(ALL, 0.01), refuse={OV8: error, ORT8: error})
    choice = choose(both)
    assert choice.reason.startswith("fp32: int8 does not run here; fp32 on")
    assert "int8 on onnxruntime failed: no such instruction" in choice.reason


@pytest.mark.parametrize(
    ("precision", "backend", "opened"),
    [
        ("auto", "openvino", [OV32, OV8]),
        ("auto", "onnxruntime", [ORT32, ORT8]),
        ("int8", "auto", [OV8, ORT8]),
        ("fp32", "openvino", []),
    ],
)
def test_only_what_was_left_open_is_measured(plant, both, precision, backend, opened):
    bench = plant(delays={OV32: 0.010, OV8: 0.005, ORT32: 0.020, ORT8: 0.004})
    choice = choose(both, precision, backend)
    assert [engine.candidate for engine in bench.opened] == opened
    fastest = {"openvino": OV8, "onnxruntime": ORT8, "auto": ORT8}[backend] if opened else OV32
    assert (choice.backend, choice.precision) == fastest
    if precision != "auto":
        assert choice.reason.startswith(f"{precision}: as asked")


def test_float16_is_not_for_cpus(plant, tmp_path):
    bench = plant(
        delays={**dict.fromkeys(ALL, 0.01), Candidate("openvino", "fp16"): 0.001}
        | {Candidate("onnxruntime", "fp16"): 0.001}
    )
    four = save_bundle(tmp_path / "b4", precisions=("fp16", "fp32", "int8", "int8-fp16"))
    assert choose(four).precision == "fp32"
    assert {engine.candidate for engine in bench.opened} == set(ALL)
    assert choose(save_bundle(tmp_path / "b1", precisions=("fp16",))).precision == "fp16"


def test_the_second_opening_measures_nothing(plant, both, cache):
    bench = plant(delays={OV32: 0.010, ORT32: 0.020, OV8: 0.005, ORT8: 0.030})
    first = choose(both)
    assert len(bench.opened) == 4
    assert choose(both) == first
    assert len(bench.opened) == 4
    choose(both, threads=1)
    assert len(bench.opened) == 8, "times with other threads were taken"
    for path in cache.iterdir():
        path.write_text("{")
    assert choose(both) == first
    assert len(bench.opened) == 12


def test_a_new_verdict_needs_no_new_measurement_of_the_same_precisions(plant, both):
    bench = plant(delays={OV32: 0.010, ORT32: 0.020, OV8: 0.005, ORT8: 0.030})
    choose(both)
    (both.path / "verify.json").write_text('{"precisions": {"int8": {"passed": true}}}')
    assert choose(both).reason.startswith("int8: verified; int8 on openvino: 5.0 ms")
    assert len(bench.opened) == 4


def test_a_file_exported_again_is_measured_again(plant, both):
    bench = plant(delays={OV32: 0.010, ORT32: 0.020, OV8: 0.005, ORT8: 0.030})
    choose(both)
    path = both.path / "model.int8.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    files = {**both.manifest.files, path.name: record_of(path)}
    write_manifest(both.path, both.manifest.model_copy(update={"files": files}))
    bench.delays[OV8] = 0.015
    assert choose(open_bundle(both.path)).precision == "fp32"
    assert len(bench.opened) == 8


def test_a_changed_file_is_an_error_not_a_slow_candidate(plant, both):
    plant(delays=dict.fromkeys(ALL, 0.01))
    path = both.path / "model.int8.onnx"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="SHA-256"):
        choose(both)


def test_wrong_options_are_found_before_anything_is_opened(plant, both):
    bench = plant(delays=dict.fromkeys(ALL, 0.01))
    for options in ({"threads": 0}, {"precision": "int4"}, {"backend": "openvno"}):
        with pytest.raises(SettingsError):
            choose(both, **options)
    with pytest.raises(BundleError, match="no category 'gear'"):
        open_engine(both, category="gear")
    with pytest.raises(BundleError, match="no fp16 model"):
        open_engine(both, precision="fp16")
    assert bench.opened == []


def test_real_engines_are_measured_and_the_winner_opens(tmp_path, cache):
    pytest.importorskip("openvino")
    bundle = save_bundle(tmp_path / "b", "input", precisions=("fp32", "int8"))
    choice = choose(bundle, time_limit=0.1)
    for one in ALL:
        assert str(one) in choice.reason
    with closing(open_engine(bundle)) as engine:
        assert (engine.info.backend, engine.info.precision) == (choice.backend, choice.precision)
        engine.run(frames(1), np.zeros(1, np.int32))
    assert len(list(cache.iterdir())) == 1
