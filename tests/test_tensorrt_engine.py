"""Engines on a stand-in of the GPU: right results, nothing leaks, faults in words."""

from __future__ import annotations

import hashlib
import itertools
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gpu_stand_in import CudaBindings, LazyStream, PyCuda, add_runtime
from graphs import CATEGORIES, SIDE, expected, frames, save_bundle
from tensorrt_stand_in import RTX, VERSIONS, tensorrt

from hvq_edge.errors import BundleError, HvqEdgeError, InputError, MissingCapability, SettingsError
from hvq_edge.runtime.cuda_device import CudaDevice
from hvq_edge.runtime.cuda_memory import memory_layer, open_cuda_memory
from hvq_edge.runtime.engine_file import (
    ENGINES_FOLDER,
    BuildOptions,
    EngineRecord,
    engine_stem,
    this_platform,
)
from hvq_edge.runtime.find_engine import open_tensorrt
from hvq_edge.runtime.open_engine import choose, open_engine
from hvq_edge.runtime.run_ahead import run_ahead

GPU = CudaDevice("NVIDIA RTX 4000", "8.9", "13.0", total=20 << 30, free=19 << 30, shared=False)


def backend_of(version: str) -> str:
    return "tensorrt-rtx" if version == RTX else "tensorrt"


def save_plan(bundle, version="10.3.0", precision="fp32", *, options=None, **changes) -> Path:
    """A plan that is the graph itself, and its record."""
    backend = backend_of(version)
    graph = bundle.path / bundle.manifest.models[precision]
    content = graph.read_bytes()
    plan = (
        bundle.path / ENGINES_FOLDER / f"{engine_stem(backend, version, ['8.9'], precision)}.plan"
    )
    plan.parent.mkdir(exist_ok=True)
    plan.write_bytes(content)
    record = EngineRecord(
        **{
            "backend": backend,
            "backend_version": version,
            "precision": precision,
            "onnx_sha256": hashlib.sha256(content).hexdigest(),
            "compute_capabilities": ("8.9",),
            "platform": this_platform(),
            "gpu_name": GPU.name,
            "driver": GPU.driver,
            "options": options or BuildOptions(),
            "workspace": 0,
            "peak_memory": None,
            "build_seconds": 0,
            "bytes": len(content),
            "plan_sha256": hashlib.sha256(content).hexdigest(),
            "hvq_edge_version": "0",
            "created": "2026-01-01T00:00:00+00:00",
            **changes,
        }
    )
    plan.with_suffix(".json").write_text(record.model_dump_json())
    return plan


@pytest.fixture(params=[PyCuda, CudaBindings])
def gpu(request, monkeypatch):
    """Either library, as if it were installed."""
    made = request.param()
    made.install(monkeypatch)
    return made


def opened(bundle, version="10.3.0", *, precision="auto", library=None, **more):
    library = library or add_runtime(tensorrt(version))
    return open_tensorrt(
        bundle,
        backend_of(library.__version__),
        precision,
        load=lambda _: library,
        device=lambda: GPU,
        **more,
    )


def same(output, wanted):
    assert output["score"].dtype == np.float32
    assert output["codes"].dtype == np.int32
    for name, value in wanted.items():
        np.testing.assert_allclose(output[name], value, rtol=1e-5, err_msg=name)


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


# Two batches on their way.


def test_the_next_batch_is_given_before_the_last_is_done(tmp_path, gpu):
    """Its frames may be reused at once, and results may be asked for in any order."""
    bundle = save_bundle(tmp_path / "b", "input")
    save_plan(bundle)
    batches = [frames(1 + i % 3, i) for i in range(7)]
    kinds = [np.full(len(batch), i % 3, np.int32) for i, batch in enumerate(batches)]
    with opened(bundle) as engine:
        promised = []
        for batch, kind in zip(batches, kinds, strict=True):
            given, category = batch.copy(), kind.copy()
            promised.append(engine.submit(given, category))
            given[:] = 0
            category[:] = 2
        for i in (6, 0, 3, 1, 5, 2, 4, 4):
            same(promised[i].result(), expected(batches[i], "input", kinds[i]))
    assert gpu.held.nothing


def test_nothing_is_computed_before_somebody_waits(tmp_path, gpu):
    """Else nothing could overlap: submit must not wait."""
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle) as engine:
        streams = [one for one in LazyStream.all.values() if one.put_so_far == 0]
        assert len(streams) == 3, "copies there, computing, copies back"
        engine.submit(frames(1))
        engine.submit(frames(1))
        assert all(one.put_so_far and not one.done for one in streams)


def test_run_and_submit_may_be_mixed(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    first, second, long = frames(1, 1), frames(2, 2), frames(19, 3)
    with opened(bundle) as engine:
        promised = engine.submit(first)
        same(engine.run(long), expected(long, "one"))
        other = engine.submit(second)
        same(promised.result(), expected(first, "one"))
        same(other.result(), expected(second, "one"))


def test_what_was_given_is_there_after_closing(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    given = frames(3)
    with opened(bundle) as engine:
        promised = engine.submit(given)
    assert gpu.held.nothing
    same(promised.result(), expected(given, "one"))
    with pytest.raises(InputError, match="closed"):
        engine.submit(given)


def test_running_ahead(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    batches = [frames(2, i) for i in range(5)]
    read = []
    with opened(bundle) as engine:
        outputs = run_ahead(engine, (read.append(i) or one for i, one in enumerate(batches)))
        same(next(outputs), expected(batches[0], "one"))
        assert read == [0, 1], "one ahead"
        for batch, output in zip(batches[1:], outputs, strict=True):
            same(output, expected(batch, "one"))
        assert list(run_ahead(engine, [])) == []


def test_running_ahead_with_an_engine_that_cannot(tmp_path):
    batches = [frames(2, i) for i in range(3)]
    with open_engine(save_bundle(tmp_path / "b"), backend="onnxruntime") as engine:
        for batch, output in zip(batches, run_ahead(engine, batches), strict=True):
            same(output, expected(batch, "one"))


# CUDA graphs.


def test_a_batch_size_that_comes_again_becomes_a_graph(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    library = add_runtime(tensorrt("10.3.0"))
    with opened(bundle, library=library) as engine:
        for seed in range(12):
            for batch in (1, 3):
                given = frames(batch, seed)
                same(engine.run(given), expected(given, "one"))
        if isinstance(gpu, PyCuda):
            assert not engine.uses_cuda_graphs, "PyCUDA has none"
            assert library.executions == 24
        else:
            assert engine.uses_cuda_graphs
            assert gpu.launches > 12
            assert library.executions < 24
    assert gpu.held.nothing


@pytest.mark.parametrize("fails", ["capture", "cuStreamEndCapture", "cuGraphInstantiate"])
def test_an_engine_that_cannot_be_captured_runs_all_the_same(tmp_path, monkeypatch, fails):
    gpu = CudaBindings("" if fails == "capture" else fails)
    gpu.install(monkeypatch)
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle, library=add_runtime(tensorrt("10.3.0"), fails=fails)) as engine:
        for seed in range(6):
            given = frames(2, seed)
            same(engine.run(given), expected(given, "one"))
        assert not engine.uses_cuda_graphs
    assert gpu.launches == 0


def test_graphs_can_be_left_out(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with opened(bundle, cuda_graphs=False) as engine:
        for _ in range(6):
            engine.run(frames(1))
        assert not engine.uses_cuda_graphs
        assert gpu.held.graphs == 0


# Closing.


def test_nothing_is_held_after_10_000_frames(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    engine = opened(bundle)
    batch = frames(8)
    for _ in range(6):
        engine.run(batch)
    held = dict(vars(gpu.held))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in run_ahead(engine, itertools.repeat(batch, 1250)):
            pass
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert vars(gpu.held) == held, "a run allocates nothing on the GPU, and no page-locked memory"
    assert after - before < 100_000
    engine.close()
    engine.close()
    assert gpu.held.nothing
    with pytest.raises(InputError, match="closed"):
        engine.run(frames(1))


def test_closing_in_another_thread(tmp_path, gpu):
    """PyCUDA by itself would keep the context: it lets go of it where it was opened."""
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    engine = opened(bundle)
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join(30)
    assert gpu.held.nothing, vars(gpu.held)


def test_closing_while_others_run(tmp_path, gpu):
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    engine = opened(bundle)
    given = frames(4)
    wanted = expected(given, "one")
    began = threading.Barrier(5)
    faults = []

    def work():
        began.wait(30)
        try:
            while True:
                same(engine.run(given), wanted)
        except InputError:
            pass
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    began.wait(30)
    engine.close()
    for thread in threads:
        thread.join(30)
    assert faults == []
    assert gpu.held.nothing


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
    from hvq_edge.runtime import cuda_device

    monkeypatch.setattr(cuda_device, "LIBRARY", "libno-such-driver.so.1")
    with pytest.raises(MissingCapability, match="no NVIDIA driver"):
        open_engine(save_bundle(tmp_path / "b"), backend="tensorrt-rtx")


def test_neither_memory_library(monkeypatch):
    for name in ("pycuda.driver", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingCapability, match="neither PyCUDA nor cuda-python"):
        open_cuda_memory()


def test_pycuda_comes_first(monkeypatch):
    for made in (CudaBindings(), PyCuda()):
        made.install(monkeypatch)
    memory = open_cuda_memory()
    assert memory.name == "PyCUDA 2026.1"
    memory.close()


def test_a_driver_that_fails_is_said(monkeypatch):
    made = PyCuda(error=RuntimeError("cuInit failed: no CUDA-capable device is detected"))
    made.install(monkeypatch)
    with pytest.raises(MissingCapability, match="no CUDA-capable device"):
        open_cuda_memory()


def test_cuda_python_that_fails(monkeypatch):
    made = CudaBindings("cuInit")
    made.install(monkeypatch)
    with pytest.raises(MissingCapability, match="cuInit gave error 2"):
        open_cuda_memory()
    assert made.held.nothing


@pytest.mark.parametrize("fails", ["cuStreamCreate", "cuEventCreate", "cuMemAllocHost"])
def test_cuda_python_that_fails_while_an_engine_is_opened(tmp_path, monkeypatch, fails):
    made = CudaBindings(fails)
    made.install(monkeypatch)
    bundle = save_bundle(tmp_path / "b")
    save_plan(bundle)
    with pytest.raises(HvqEdgeError, match=f"{fails} gave error 2"):
        opened(bundle)
    assert made.held.nothing


def test_which_memory_layer_is_used_is_told_without_a_gpu(monkeypatch):
    for name in ("pycuda", "pycuda.driver", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    none = memory_layer()
    assert (none.name, none.cuda_graphs, set(none.missing)) == (
        None,
        False,
        {"PyCUDA", "cuda-python"},
    )
    CudaBindings().install(monkeypatch)
    second = memory_layer()
    assert (second.name, second.cuda_graphs) == ("cuda-python 13.5.0", True)
    assert set(second.missing) == {"PyCUDA"}
    PyCuda().install(monkeypatch)
    first = memory_layer()
    assert (first.name, first.cuda_graphs, first.missing) == ("PyCUDA 2026.1", False, {})


def test_on_a_real_gpu():
    try:
        memory = open_cuda_memory()
    except MissingCapability as error:
        pytest.skip(error.cause)
    with memory.current():
        array = memory.page_locked((5, 7), np.dtype(np.float32))
        array[:] = np.arange(35).reshape(5, 7)
        back = memory.page_locked((5, 7), np.dtype(np.float32))
        address = memory.allocate(array.nbytes)
        there, home = memory.new_stream(), memory.new_stream()
        arrived, done = memory.new_event(), memory.new_event()
        memory.to_device(address, array, there)
        memory.record(arrived, there)
        memory.wait(home, arrived)
        memory.to_host(back, address, home)
        memory.record(done, home)
        memory.synchronise(done)
        np.testing.assert_array_equal(back, np.arange(35).reshape(5, 7))
        if memory.can_capture:
            memory.begin_capture(there)
            memory.to_device(address, array, there)
            memory.to_host(back, address, there)
            graph = memory.end_capture(there)
            array[:] = 7
            memory.launch(graph, there)
            memory.drain()
            np.testing.assert_array_equal(back, np.full((5, 7), 7))
    memory.close()
