"""Engines on a stand-in of the GPU: right results, nothing leaks, faults in words."""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
from helpers.graphs import CATEGORIES, SIDE, expected, frames, save_bundle
from helpers.plans import GPU, backend_of, gpu, opened, same, save_plan  # noqa: F401  # fixtures
from helpers.runtime_stand_in import add_runtime
from helpers.tensorrt_stand_in import VERSIONS, tensorrt

from hvq_edge.errors import BundleError, HvqEdgeError, InputError, MissingCapability, SettingsError
from hvq_edge.runtime.open_engine import choose, open_engine
from hvq_edge.runtime.tensorrt.engine_file import (
    BuildOptions,
)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["one", "auto", "input"])
def test_results_are_those_of_the_graph(tmp_path, gpu, version, mode):
    bundle = save_bundle(tmp_path / "b", mode)
    save_plan(bundle, version)
    with opened(bundle, version) as engine:
        assert engine.info.backend == backend_of(version)
        assert GPU.name in engine.info.device
        assert version in engine.info.device
        for seed, batch in enumerate((1, 3, 8)):
            given = frames(batch, seed)
            category = np.arange(batch, dtype=np.int32) % len(CATEGORIES)
            category = category if mode == "input" else None
            same(engine.run(given, category), expected(given, mode, category))
    assert gpu.held.nothing, vars(gpu.held)


def test_a_batch_beyond_the_largest_goes_in_parts(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b", "auto")
    save_plan(bundle)
    given = frames(19)
    with opened(bundle) as engine:
        same(engine.run(given), expected(given, "auto"))


def test_an_engine_of_one_batch_size(tmp_path, gpu):
    """A DLA's: the last part is filled up."""
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle, options=BuildOptions(dla_core=1, opt_batch=4, max_batch=4))
    library = add_runtime(tensorrt("10.3.0"), batches=(4, 4, 4))
    with opened(bundle, library=library) as engine:
        assert library.runtimes[0].DLA_core == 1
        for batch in (1, 4, 6):
            given = frames(batch)
            same(engine.run(given), expected(given, "one"))


def test_a_result_is_the_callers_own(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle) as engine:
        first = engine.run(frames(2, 1))
        kept = {name: value.copy() for name, value in first.items()}
        engine.run(frames(2, 2))
    for name, value in kept.items():
        np.testing.assert_array_equal(first[name], value)


def test_a_version_compatible_plan_may_bring_its_own_code(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle, backend_version="10.3.0", options=BuildOptions(version_compatible=True))
    library = add_runtime(tensorrt("10.16.1.11"))
    with opened(bundle, library=library):
        assert library.runtimes[0].engine_host_code_allowed is True


def test_other_plans_may_not(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    library = add_runtime(tensorrt("10.3.0"))
    with opened(bundle, library=library), pytest.raises(NotImplementedError):
        _ = library.runtimes[0].engine_host_code_allowed


@pytest.mark.parametrize(
    ("fails", "kind", "said"),
    [
        ("deserialise", BundleError, "cannot load .*Serialization assertion failed"),
        ("context", HvqEdgeError, "too little memory"),
    ],
)
def test_an_engine_that_cannot_be_opened(tmp_path, gpu, fails, kind, said):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with pytest.raises(kind, match=said):
        opened(bundle, library=add_runtime(tensorrt("10.3.0"), fails=fails))
    assert gpu.held.nothing


@pytest.mark.parametrize("fails", ["shape", "execute"])
def test_a_run_that_fails(tmp_path, gpu, fails):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    library = add_runtime(tensorrt("10.3.0"), fails=fails)
    with (
        opened(bundle, library=library) as engine,
        pytest.raises(HvqEdgeError, match="cannot run the engine"),
    ):
        engine.run(frames(1))
    assert gpu.held.nothing


def test_a_plan_of_another_graph(tmp_path, gpu):
    """Its record says otherwise: somebody mixed them up."""
    bundle = save_bundle(tmp_path / "b", "one")
    other = save_bundle(tmp_path / "other", "auto")
    plan = save_plan(bundle)
    content = (other.path / "model.fp32.onnx").read_bytes()
    save_plan(bundle, plan_sha256=hashlib.sha256(content).hexdigest())
    plan.write_bytes(content)
    with pytest.raises(BundleError, match="not a graph of category mode one"):
        opened(bundle)
    assert gpu.held.nothing


def test_frames_of_another_shape(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle) as engine, pytest.raises(InputError, match=f"{SIDE}, {SIDE}, 3"):
        engine.run(frames(1)[:, 1:])


# Which plan.


def test_auto_prefers_what_gpus_are_best_at(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "fp16", "int8", "int8-fp16"))
    for precision in ("fp32", "int8"):
        save_plan(bundle, precision=precision)
    with opened(bundle) as engine:
        assert engine.info.precision == "int8"
    save_plan(bundle, precision="int8-fp16")
    with opened(bundle) as engine:
        assert engine.info.precision == "int8-fp16"
    with opened(bundle, precision="fp32") as engine:
        assert engine.info.precision == "fp32"
    with pytest.raises(BundleError, match=r"has no engine for tensorrt 10\.3\.0"):
        opened(bundle, precision="fp16")


def test_why_no_plan_serves(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    with pytest.raises(BundleError) as caught:
        opened(bundle)
    command = f"hvq-edge build {bundle.path} --backend tensorrt --precision fp32"
    assert caught.value.next_step == f"run {command}"
    save_plan(bundle, compute_capabilities=("8.7",))
    with pytest.raises(BundleError, match=r"built for 8\.7, here is 8\.9"):
        opened(bundle)
    save_plan(bundle, backend_version="10.2.0")
    with pytest.raises(BundleError, match=r"built for 10\.2\.0, here is 10\.3\.0"):
        opened(bundle)


def test_a_wrong_precision(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    with pytest.raises(SettingsError, match="'int9' is none of"):
        opened(bundle, precision="int9")
    with pytest.raises(BundleError, match="has no fp16 model"):
        opened(bundle, precision="fp16")


def test_what_auto_means_is_told_without_a_gpu(tmp_path):
    """The evaluation names it in its report."""
    bundle = save_bundle(tmp_path / "b", precisions=("fp32", "fp16", "int8-fp16"))
    with pytest.raises(BundleError, match="has no tensorrt engine"):
        choose(bundle, backend="tensorrt")
    save_plan(bundle, precision="int8-fp16")
    assert choose(bundle, backend="tensorrt").precision == "int8-fp16"
    assert choose(bundle, "fp32", "tensorrt").precision == "fp32"
    with pytest.raises(BundleError, match="has no engine for tensorrt"):
        opened(bundle, precision="fp16")
    with pytest.raises(SettingsError):
        choose(bundle, "int9", "tensorrt")


# What the machine lacks.


def test_open_engine_without_the_library(tmp_path, monkeypatch):
    bundle = save_bundle(tmp_path / "b")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(MissingCapability, match="tensorrt cannot be imported"):
        open_engine(bundle, backend="tensorrt")


def test_open_engine_with_rtx_and_no_driver(tmp_path, monkeypatch):
    pytest.importorskip("tensorrt_rtx", reason="needs the rtx extra")
    from hvq_edge.runtime.cuda import device as cuda_device

    monkeypatch.setattr(cuda_device, "LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(MissingCapability, match="no NVIDIA driver"):
        open_engine(save_bundle(tmp_path / "b"), backend="tensorrt-rtx")
