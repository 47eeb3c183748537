"""Which engine opens for a bundle, and why."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("onnx")
from helpers.engine_bench import ALL, ORT8, ORT32, OV8, OV32, both, cache, plant  # noqa: F401  # fixtures
from helpers.graphs import frames, save_bundle

from hvq_edge.bundle import verification
from hvq_edge.bundle.manifest import record_of, write_manifest
from hvq_edge.bundle.opened import open_bundle
from hvq_edge.bundle.thresholds import last_changes, put_thresholds, set_last
from hvq_edge.errors import BundleError, SettingsError
from hvq_edge.runtime.choice.measured_choice import Candidate
from hvq_edge.runtime.open_engine import choose, open_engine
from hvq_edge.verdict.threshold import GoodPart, learn_threshold


def test_int8_is_taken_where_it_is_faster(plant, both):
    plant(delays={OV32: 0.0098, ORT32: 0.0142, OV8: 0.0061, ORT8: 0.0201})
    choice = choose(both)
    assert (choice.backend, choice.precision) == ("openvino", "int8")
    assert choice.reason == (
        "int8: not verified yet: run hvq-edge verify; int8 on openvino: 6.1 ms an image, "
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


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_precision_that_was_calibrated_alone_is_taken_however_slow(plant, both, precision):
    """The other one has the thresholds of before."""
    name = both.manifest.categories[0]
    learnt = {name: learn_threshold([GoodPart(i / 10, f"{i}") for i in range(9)])}
    put_thresholds(both, {precision: learnt}, why="stream --calibrate with camera 0")
    slow = {OV32, ORT32} if precision == "fp32" else {OV8, ORT8}
    bench = plant(delays={one: 0.02 if one in slow else 0.001 for one in ALL})
    choice = choose(open_bundle(both.path))
    assert choice.precision == precision
    assert "its thresholds were set last, by stream --calibrate with camera 0; " in choice.reason
    assert {engine.candidate for engine in bench.opened} == slow
    put_thresholds(both, {"fp32": learnt, "int8": learnt}, why="calibrate --good")
    choice = choose(open_bundle(both.path))
    assert choice.precision == ("int8" if precision == "fp32" else "fp32")
    assert "set last" not in choice.reason


def test_a_precision_that_was_calibrated_alone_and_does_not_run_here_leaves_the_others(
    plant, both, caplog
):
    learnt = {both.manifest.categories[0]: learn_threshold([GoodPart(0.1, "a")])}
    put_thresholds(both, {"int8": learnt})
    error = BundleError("no such instruction.")
    plant(delays=dict.fromkeys(ALL, 0.01), refuse={OV8: error, ORT8: error})
    assert choose(open_bundle(both.path)).precision == "fp32"
    assert "int8 on openvino has the last thresholds, and does not run here" in caplog.text


def test_categories_whose_last_thresholds_are_of_different_precisions_bind_to_none(plant, both):
    first, second = "bolt", "nut"
    write_manifest(both.path, both.manifest.model_copy(update={"categories": (first, second)}))
    learnt = learn_threshold([GoodPart(0.1, "a")])
    put_thresholds(both, {"fp32": {first: learnt, second: learnt}}, why="stream --calibrate")
    put_thresholds(both, {"int8": {first: learnt}}, why="by hand")
    manifest = open_bundle(both.path).manifest
    assert set_last(manifest) == tuple(manifest.models)
    changes = last_changes(manifest)
    assert changes == {first: (("int8",), "by hand"), second: (("fp32",), "stream --calibrate")}
    plant(delays={one: 0.001 if one == OV32 else 0.02 for one in ALL})
    assert choose(open_bundle(both.path)).precision == "fp32"


def test_one_that_was_calibrated_alone_and_that_verify_failed_is_left_out(plant, both):
    learnt = {both.manifest.categories[0]: learn_threshold([GoodPart(0.1, "a")])}
    put_thresholds(both, {"int8": learnt})
    (both.path / "verify.json").write_text('{"precisions": {"int8": {"passed": false}}}')
    plant(delays=dict.fromkeys(ALL, 0.01))
    assert choose(open_bundle(both.path)).precision == "fp32"


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


def test_what_verify_said_is_read_once(plant, both, monkeypatch):
    """Read twice, the verdicts of files and of providers could be of two runs."""
    read = []
    monkeypatch.setattr(verification, "kept_record", lambda path, _: read.append(path.name))
    plant(delays=dict.fromkeys(ALL, 0.01))
    choose(both)
    assert read == ["verify.json"]


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
