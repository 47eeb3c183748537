"""``auto`` takes an engine for the GPU where it is fastest and verified, and says why not else."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("onnx")
from helpers.engine_bench import OV8, OV32, Bench
from helpers.gpu_stand_in import CudaBindings
from helpers.graphs import frames, save_bundle
from helpers.plans import GPU, save_plan
from helpers.runtime_stand_in import add_runtime
from helpers.tensorrt_stand_in import tensorrt

from hvq_edge.errors import MissingCapability
from hvq_edge.runtime.choice import choose_graph as rooms
from hvq_edge.runtime.choice import gpu_candidates, open_candidate
from hvq_edge.runtime.choice.measured_choice import Candidate, measure
from hvq_edge.runtime.open_engine import choose, open_engine
from hvq_edge.runtime.tensorrt import find_engine

TRT16, TRT8 = Candidate("tensorrt", "fp16"), Candidate("tensorrt", "int8-fp16")
ALL_FILES = ("fp32", "fp16", "int8", "int8-fp16")
PASSED = dict.fromkeys(ALL_FILES, True)


def verified(bundle, verdicts):
    judged = {name: {"passed": passed} for name, passed in verdicts.items()}
    (bundle.path / "verify.json").write_text(json.dumps({"precisions": judged}))


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(tmp_path / "b", precisions=ALL_FILES)


@pytest.fixture
def device(monkeypatch):
    """A machine with a GPU and TensorRT 10.3."""
    library = add_runtime(tensorrt("10.3.0"))
    gpu = CudaBindings()
    gpu.install(monkeypatch)
    for function in (gpu_candidates.gpu_candidates, find_engine.open_tensorrt):
        monkeypatch.setitem(function.__kwdefaults__, "load", lambda _: library)
        monkeypatch.setitem(function.__kwdefaults__, "device", lambda: GPU)
    return gpu


@pytest.fixture
def plant(tmp_path, monkeypatch, device):
    """Fake engines in the place of real ones, OpenVINO alone beside TensorRT."""

    def put(**options):
        bench = Bench(**options)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setattr(rooms, "find_spec", lambda name: name == "openvino" or None)
        monkeypatch.setattr(
            open_candidate, "open_graph", lambda _, candidate, *__: bench.open(candidate)
        )
        monkeypatch.setattr(
            open_candidate, "open_built", lambda _, candidate: bench.open(candidate)
        )
        monkeypatch.setattr(
            rooms, "measure", lambda *args, **kw: measure(*args, **kw, clock=lambda: bench.now)
        )
        return bench

    return put


CPU = {OV32: 0.010, OV8: 0.006}


def test_the_engine_is_taken_where_it_is_fastest(plant, bundle):
    for precision in ("fp16", "int8-fp16"):
        save_plan(bundle, precision=precision)
    verified(bundle, PASSED)
    plant(delays={**CPU, TRT16: 0.0021, TRT8: 0.0014})
    choice = choose(bundle)
    assert (choice.backend, choice.precision) == TRT8
    assert choice.reason == (
        "int8-fp16: verified; int8-fp16 on tensorrt: 1.4 ms an image, fp16 on tensorrt 2.1, "
        "int8 on openvino 6.0, fp32 on openvino 10.0 (measured on this machine)"
    )


def test_the_cpu_is_taken_where_the_engine_gains_nothing(plant, bundle):
    save_plan(bundle, precision="fp16")
    verified(bundle, PASSED)
    plant(delays={**CPU, TRT16: 0.0059})
    assert choose(bundle).backend == "openvino"


def test_times_are_remembered_for_the_same_plan_only(plant, bundle):
    plan = save_plan(bundle, precision="fp16")
    verified(bundle, PASSED)
    bench = plant(delays={**CPU, TRT16: 0.002})
    first = choose(bundle)
    assert choose(bundle) == first
    assert len(bench.opened) == 3
    content = plan.read_bytes()
    plan.write_bytes(content + b"\0")
    save_plan(bundle, precision="fp16")  # the plan as before
    assert choose(bundle) == first
    assert len(bench.opened) == 3
    for path in (bundle.path / "engines").iterdir():
        path.unlink()
    assert choose(bundle).backend == "openvino"


@pytest.mark.parametrize(
    ("verdicts", "why"),
    [
        ({}, "without the fp16 engine for tensorrt: hvq-edge verify has not passed fp16"),
        ({"fp16": False}, "without the fp16 engine for tensorrt: hvq-edge verify has not passed"),
    ],
)
def test_an_engine_that_verify_has_not_passed_is_left_out(plant, bundle, verdicts, why):
    save_plan(bundle, precision="fp16")
    verified(bundle, verdicts)
    bench = plant(delays=CPU)
    choice = choose(bundle)
    assert choice.backend == "openvino"
    assert why in choice.reason
    assert TRT16 not in {engine.candidate for engine in bench.opened}


def test_who_asks_for_a_precision_gets_its_engine_unverified(plant, bundle):
    save_plan(bundle, precision="fp16")
    plant(delays={Candidate("openvino", "fp16"): 0.01, TRT16: 0.002})
    choice = choose(bundle, "fp16")
    assert (choice.backend, choice.precision) == TRT16
    assert choice.reason.startswith("fp16: as asked; fp16 on tensorrt: 2.0 ms")


def test_an_engine_for_another_gpu_is_left_out(plant, bundle):
    save_plan(bundle, precision="fp16", compute_capabilities=("8.7",))
    verified(bundle, PASSED)
    plant(delays=CPU)
    choice = choose(bundle)
    assert choice.backend == "openvino"
    assert "built for 8.7, here is 8.9" in choice.reason


def test_without_a_gpu_the_cpu_runs_it_and_the_reason_is_said(plant, bundle, monkeypatch):
    def none():
        raise MissingCapability("this machine has no NVIDIA driver.")

    monkeypatch.setitem(gpu_candidates.gpu_candidates.__kwdefaults__, "device", none)
    save_plan(bundle, precision="fp16")
    verified(bundle, PASSED)
    plant(delays=CPU)
    reason = choose(bundle).reason
    assert "; without engines for tensorrt: this machine has no NVIDIA driver" in reason


def test_a_named_backend_leaves_engines_out(plant, bundle):
    save_plan(bundle, precision="fp32")
    verified(bundle, PASSED)
    bench = plant(delays=CPU)
    assert choose(bundle, backend="openvino").backend == "openvino"
    assert {engine.candidate for engine in bench.opened} == {OV32, OV8}


def test_what_was_chosen_is_opened(device, bundle, monkeypatch, tmp_path):
    """Real engines on the stand-in of a GPU: whichever wins runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    save_plan(bundle, precision="fp32")
    verified(bundle, PASSED)
    choice = choose(bundle, "fp32")
    assert "fp32 on tensorrt" in choice.reason
    with open_engine(bundle, precision="fp32") as engine:
        assert (engine.info.backend, engine.info.precision) == (choice.backend, "fp32")
        engine.run(frames(1))
    assert device.held.nothing
